"""Publishes with pubcontrol over ZeroMQ, which finds the other sockets by asking the command socket.

Arguments: address of the command socket, `push` or `pub`, channel, text. Stays until it is ended, since closing loses what
was not sent yet.
"""

import sys
import threading

import pubcontrol
from gripcontrol import HttpStreamFormat

address, way, channel, text = sys.argv[1:]
wanted = threading.Event()


def on_subscription(event, name):
    print(event, name, flush=True)
    if name == channel:
        wanted.set()


if way == "pub":
    client = pubcontrol.ZmqPubControlClient(address, require_subscribers=True, sub_callback=on_subscription)
    wanted.wait(20)
else:
    client = pubcontrol.ZmqPubControlClient(address)
client.publish(channel, pubcontrol.Item(HttpStreamFormat(text)), blocking=True)
print("published", flush=True)
threading.Event().wait()
