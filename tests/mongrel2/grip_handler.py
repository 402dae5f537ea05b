"""A handler of Mongrel2 that answers with GRIP: /stream and /poll are held, everything else is answered."""

import json
import sys

import zmq

SEND, RECV = sys.argv[1:]
context = zmq.Context()
pull = context.socket(zmq.PULL)
pull.connect(f"tcp://127.0.0.1:{SEND}")
pub = context.socket(zmq.XPUB)
pub.connect(f"tcp://127.0.0.1:{RECV}")
pub.recv()
print("connected", flush=True)


def answer(connection, head, body):
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nContent-Type: text/plain\r\n{head}\r\n"
    pub.send(b"waft %d:%s, " % (len(connection), connection) + head.encode() + body)


while True:
    _ident, connection, path, rest = pull.recv().split(b" ", 3)
    length, rest = rest.split(b":", 1)
    headers = json.loads(rest[: int(length)])
    if headers["METHOD"] == "JSON":
        continue
    # Requests of a GRIP proxy prove themselves.
    assert "grip-sig" in headers, headers
    if path == b"/stream":
        answer(connection, "Grip-Hold: stream\r\nGrip-Channel: room\r\n", b"opened\n")
    elif path == b"/poll":
        answer(connection, "Grip-Hold: response\r\nGrip-Channel: room\r\n", b"nothing\n")
    else:
        answer(connection, "", b"plain")
    print("held", path.decode(), flush=True)
