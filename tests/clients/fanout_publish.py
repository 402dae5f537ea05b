"""Publishes with the Fanout library as it is. HOST:PORT stands for the host that is built into it."""

import socket
import sys

import fanout

host, port = sys.argv[1].split(":")
resolve = socket.getaddrinfo


def redirected(name, *rest, **named):
    if name == "api.fanout.io":
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, int(port)))]
    return resolve(name, *rest, **named)


socket.getaddrinfo = redirected

fanout.realm = "demo"
fanout.key = "c2VjcmV0"
fanout.ssl = False
fanout.publish("open/py", {"from": "python"}, blocking=True)
try:
    fanout.publish("open/py", "no", blocking=True, realm="demo", key="b3RoZXI=", ssl=False)
except Exception as error:
    print("refused:", "Unauthorized" in str(error))
