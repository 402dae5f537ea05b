"""A worker with one socket: it has every request held until something is published to the channel `test`."""

import sys

import zmq

from tnetstring import dumps, loads

socket = zmq.Context().socket(zmq.REP)
socket.connect(sys.argv[1])
while True:
    request = loads(socket.recv()[1:])
    response = {
        b"id": request[b"id"],
        b"code": 200,
        b"reason": b"OK",
        b"headers": [[b"Grip-Hold", b"response"], [b"Grip-Channel", b"test"]],
        b"body": b"nothing happened\n",
    }
    socket.send(b"T" + dumps(response))
