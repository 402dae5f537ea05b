"""An HTTP and WebSocket server that answers by path, byte by byte as told."""

import base64
import gzip
import hashlib
import json
import socket
import struct
import threading


BOMB = gzip.compress(bytes(20_000_000))


class Backend:
    def __init__(self, wrap=None, address=("127.0.0.1", 0)):
        self.listener = socket.create_server(address, backlog=512)
        self.port = self.listener.getsockname()[1]
        self.wrap = wrap
        self.requests, self.connections, self.lost = [], 0, []
        self.release = threading.Event()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            self.connections += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self.wrap:
                connection = self.wrap(connection)
            stream = connection.makefile("rb")
            while self.answer(connection, stream):
                pass
        except (OSError, ValueError):
            pass
        finally:
            connection.close()

    def answer(self, connection, stream):
        line = stream.readline()
        if not line:
            return False
        method, path, _ = line.decode().split(" ", 2)
        headers = []
        while (field := stream.readline().rstrip(b"\r\n")) != b"":
            name, value = field.decode("latin-1").split(":", 1)
            headers.append([name, value.strip()])
        lower = {name.lower(): value for name, value in headers}
        body = b""
        if path == "/early":
            self.reply(connection, 200, b"early", extra="Connection: close\r\n")
            return False
        if "content-length" in lower:
            body = stream.read(int(lower["content-length"]))
        elif lower.get("transfer-encoding") == "chunked":
            while (size := int(stream.readline(), 16)) > 0:
                body += stream.read(size)
                stream.readline()
            stream.readline()
        record = {"method": method, "path": path, "headers": headers, "body": body.decode("latin-1")}
        self.requests.append(record)
        if lower.get("upgrade", "").lower() == "websocket" and path.startswith("/ws"):
            return self.websocket(connection, stream, path, lower)
        name, _, argument = path.lstrip("/").partition("/")
        handler = getattr(self, "do_" + name.split("?")[0].replace("-", "_"), None)
        if handler is None:
            return self.reply(connection, 404, b"no such path")
        return handler(connection, method, argument, record)

    def reply(self, connection, code, body, extra="", method="GET"):
        head = f"HTTP/1.1 {code} Reason {code}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode()
        connection.sendall(head + (b"" if method == "HEAD" else body))
        return True

    def do_echo(self, connection, method, _, record):
        return self.reply(connection, 200, json.dumps(record).encode(), "Content-Type: application/json\r\n", method)

    def do_size(self, connection, method, argument, _):
        return self.reply(connection, 200, (b"0123456789" * (int(argument) // 10 + 1))[: int(argument)], method=method)

    def do_status(self, connection, method, argument, _):
        code = int(argument)
        if code in (204, 304):
            connection.sendall(f"HTTP/1.1 {code} None\r\n\r\n".encode())
            return True
        return self.reply(connection, code, b"body", method=method)

    def do_chunked(self, connection, *_):
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nX-A: 2\r\n\r\n")
        for piece in (b"5\r\nhello\r\n", b"6\r\n world\r\n", b"0\r\n\r\n"):
            connection.sendall(piece)
        return True

    def do_until_close(self, connection, *_):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        return False

    def do_interim(self, connection, *_):
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        return self.reply(connection, 200, b"final")

    def do_garbage(self, connection, *_):
        connection.sendall(b"this is not http\r\n\r\n")
        return False

    def do_drop(self, *_):
        return False

    def do_cut(self, connection, *_):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        return False

    def do_hang(self, connection, _, argument, record):
        connection.recv(1)
        self.lost.append(argument or "hang")
        return False

    def do_head_then_wait(self, connection, *_):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        self.release.wait(10)
        connection.sendall(b"done")
        return True

    def do_gzip(self, connection, *_):
        return self.reply(connection, 200, gzip.compress(b"plain text" * 100), "Content-Encoding: gzip\r\n")

    def do_bomb(self, connection, *_):
        return self.reply(connection, 200, BOMB, "Content-Encoding: gzip\r\n")

    def do_redirect(self, connection, _, argument, record):
        left = int(argument)
        target = f"/redirect/{left - 1}" if left > 1 else "/echo"
        return self.reply(connection, 302, b"go on", f"Location: {target}\r\n")

    def do_redirect_to(self, connection, _, argument, record):
        code = record["path"].partition("?")[2].partition("&")
        return self.reply(connection, int(code[0]), b"go on", f"Location: {code[2]}\r\n")

    # WebSockets.

    def websocket(self, connection, stream, path, headers):
        accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        if path == "/ws-bad-accept":
            accept = "AAAA" + accept[4:]
        protocol = headers.get("sec-websocket-protocol", "").split(",")[0].strip()
        extra = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
        if path.startswith("/ws-redirect"):
            return self.reply(connection, 302, b"", f"Location: ws://{path.partition('?')[2]}\r\n")
        connection.sendall(
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{extra}\r\n".encode()
        )
        if path == "/ws-large":
            frame(connection, 0x82, bytes(300_000))
        if path == "/ws-fragments":
            frame(connection, 0x01, b"one ")
            frame(connection, 0x89, b"between")
            frame(connection, 0x80, b"two")
        if path == "/ws-drop":
            return False
        if path == "/ws-burst":
            frame(connection, 0x82, b"x" * 5_000)
            frame(connection, 0x88, struct.pack(">H", 1000) + b"done")
        while True:
            first, content = read_frame(stream)
            if first is None:
                self.lost.append("ws")
                return False
            self.requests.append({"frame": first, "body": content})
            if first & 0x0F == 8:
                if path != "/ws-burst":
                    frame(connection, 0x88, content)
                return False
            if first & 0x0F in (0, 1, 2):
                frame(connection, first, content)
            if first & 0x0F == 9:
                frame(connection, 0x8A, content)


def frame(connection, first, content):
    size = len(content)
    head = bytes([first, size]) if size < 126 else bytes([first, 126]) + struct.pack(">H", size) if size < 65536 else bytes([first, 127]) + struct.pack(">Q", size)
    connection.sendall(head + content)


def read_frame(stream):
    head = stream.read(2)
    if len(head) < 2:
        return None, b""
    size = head[1] & 0x7F
    assert head[1] & 0x80, "frames of clients are masked"
    if size == 126:
        size = struct.unpack(">H", stream.read(2))[0]
    elif size == 127:
        size = struct.unpack(">Q", stream.read(8))[0]
    mask = stream.read(4)
    return head[0], bytes(byte ^ mask[index % 4] for index, byte in enumerate(stream.read(size)))
