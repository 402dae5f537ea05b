"""Pushes messages to a PULL socket. Arguments: address, then one message after the other; \\xNN stands for a byte."""

import sys

import zmq

address, *messages = sys.argv[1:]
socket = zmq.Context().socket(zmq.PUSH)
socket.connect(address)
for message in messages:
    frames = message.encode().decode("unicode_escape").encode("latin-1").split(b"|")
    socket.send_multipart(frames)
# Ends when everything was taken.
socket.close()
socket.context.term()
print("pushed")
