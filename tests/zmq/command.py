"""Sends commands and prints the answers. Arguments: address, `REQ` or `DEALER`, then one request after the other.

A request is JSON, which goes out as a TNetString, or begins with `raw:` and goes out as it is. An answer that does not come
within a second is printed as `nothing`, and the next request is sent from another socket.
"""

import json
import sys

import tnetstring
import zmq

address, kind, *requests = sys.argv[1:]
context = zmq.Context()


def connected():
    socket = context.socket(getattr(zmq, kind))
    socket.linger = 0
    socket.connect(address)
    return socket


socket = connected()
for request in requests:
    data = request[4:].encode() if request.startswith("raw:") else tnetstring.dumps(json.loads(request))
    socket.send_multipart([data] if kind == "REQ" else [b"", data])
    if socket.poll(1000):
        answer = tnetstring.loads(socket.recv_multipart()[-1])
        print(json.dumps(tnetstring.readable(answer), sort_keys=True), flush=True)
    else:
        print("nothing", flush=True)
        socket.close()
        socket = connected()
