"""Connects twice to HOST:PORT as NAME with the authorities in FILE; prints for both versions whether it was known again."""

import socket
import ssl
import sys

place, name, authorities = sys.argv[1:]
host, port = place.rsplit(":", 1)


def ask(context, session=None):
    with socket.create_connection((host, int(port))) as plain:
        with context.wrap_socket(plain, server_hostname=name, session=session) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert tls.recv(100).startswith(b"HTTP/1.1 "), "no answer"
            return tls.session, tls.session_reused


for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=authorities)
    context.minimum_version = context.maximum_version = version
    session, first = ask(context)
    _, second = ask(context, session)
    print(version.name, first, second)
