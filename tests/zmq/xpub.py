"""A publisher that sees who wants what. Arguments: `bind` or `connect`, address, and an encoding.

Prints a line for each subscription, `+name` or `-name`, and answers each `+name` with an item for that channel and with
one for `name0`, which a publisher sends to all who subscribed to `name`.
"""

import json
import sys

import tnetstring
import zmq

how, address, encoding = sys.argv[1:]
socket = zmq.Context().socket(zmq.XPUB)
socket.rcvhwm = 0
getattr(socket, how)(address)


def item(text):
    # A channel inside is not looked at.
    value = {"channel": "other", "formats": {"http-stream": {"content": text}, "http-response": {"body": text}}}
    if encoding == "json":
        return b"J" + json.dumps(value).encode()
    return (b"T" if encoding == "T" else b"") + tnetstring.dumps(value)


while True:
    event = socket.recv()
    name = event[1:]
    print("+-"[event[0] == 0] + name.decode(), flush=True)
    if event[0] == 1:
        socket.send_multipart([name + b"0", item("wrong\n")])
        socket.send_multipart([name, item("hello %s\n" % name.decode())])
