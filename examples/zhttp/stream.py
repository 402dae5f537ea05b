"""A worker of the stream interface: it answers each request in one packet, whose head says how it was asked."""

import os
import sys

import zmq

from tnetstring import dumps, loads

# The name has to be new with each start, and is the identity of the socket by which later packets come.
name = b"worker-%d" % os.getpid()
context = zmq.Context()
requests, later, answers = context.socket(zmq.PULL), context.socket(zmq.DEALER), context.socket(zmq.XPUB)
later.identity = name
for socket, end in [(requests, "-out"), (later, "-out-stream"), (answers, "-in")]:
    socket.connect(sys.argv[1] + end)
answers.recv()  # Somebody listens: before that, an answer would be lost.
while True:
    request = loads(requests.recv()[1:])
    text = b"%b %b\n" % (request[b"method"], request[b"uri"])
    packet = {b"from": name, b"id": request[b"id"], b"seq": 0, b"code": 200, b"reason": b"OK", b"body": text}
    answers.send(request[b"from"] + b" T" + dumps(packet))
