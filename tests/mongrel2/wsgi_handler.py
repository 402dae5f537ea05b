"""An unmodified m2wsgi serves a WSGI application. It was written for Python 2: its sockets speak text, and it looks for
modules where pyzmq had them then."""

import subprocess
import sys
import types

import zmq

core, poll = types.ModuleType("zmq.core"), types.ModuleType("zmq.core.poll")
poll.select = zmq.select
core.poll = poll
zmq.core = core
sys.modules["zmq.core"], sys.modules["zmq.core.poll"] = core, poll
subprocess.MAXFD = 256


class Socket(zmq.Socket):
    def recv(self, *args, **kwargs):
        return super().recv(*args, **kwargs).decode("latin-1")

    def send(self, data, *args, **kwargs):
        return super().send(data.encode("latin-1") if isinstance(data, str) else data, *args, **kwargs)


class Context(zmq.Context):
    def socket(self, kind):
        return super().socket(kind, socket_class=Socket)


zmq.Context = Context

from m2wsgi.io.standard import Connection, WSGIHandler  # noqa: E402


def application(environ, start_response):
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    body = "m2wsgi: " + path
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


send, recv = sys.argv[1:]
handler = WSGIHandler(application, Connection(send, recv))
print("connected", flush=True)
handler.serve()
