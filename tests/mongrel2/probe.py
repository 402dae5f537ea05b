"""Asks a server that is called Mongrel2 for everything that its handlers and clients rely on.

    probe.py SERVER DIRECTORY PORT BASE [CHECK...]

SERVER is `mongrel2` or `waft`: where waft goes another way on purpose, a check says so. The sockets of handlers are at
BASE and the ports after it; DIRECTORY is where the server runs. Prints a line for each check that holds.
"""

import json
import os
import socket
import struct
import sys
import time

import zmq

SERVER, DIRECTORY, PORT, BASE = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
WANTED = sys.argv[5:]
WAIT = 10
CONTEXT = zmq.Context()


def tnet(data):
    """A TNetString, and what follows it."""
    length, rest = data.split(b":", 1)
    length = int(length)
    payload, kind, rest = rest[:length], rest[length : length + 1], rest[length + 1 :]
    if kind == b",":
        value = payload
    elif kind == b"#":
        value = int(payload)
    elif kind == b"!":
        value = payload == b"true"
    elif kind == b"~":
        value = None
    elif kind == b"]":
        value = []
        while payload:
            item, payload = tnet(payload)
            value.append(item)
    elif kind == b"}":
        value = {}
        while payload:
            key, payload = tnet(payload)
            value[key.decode()], payload = tnet(payload)
    else:
        raise ValueError(data)
    return value, rest


class Message:
    """What a handler gets."""

    def __init__(self, raw):
        self.raw = raw
        self.ident, self.id, self.path, rest = raw.split(b" ", 3)
        headers, rest = tnet(rest)
        self.is_json = isinstance(headers, bytes)
        if self.is_json:
            headers = json.loads(headers)
        else:
            text = lambda value: [item.decode("latin-1") for item in value] if isinstance(value, list) else value.decode("latin-1")
            headers = {key: text(value) for key, value in headers.items()}
        self.headers = headers
        self.body, rest = tnet(rest)
        assert rest == b"", rest

    def is_disconnect(self):
        return self.headers.get("METHOD") == "JSON" and json.loads(self.body) == {"type": "disconnect"}


class Handler:
    """A handler at the sockets of one configuration entry."""

    def __init__(self, number, identity=b""):
        self.pull = CONTEXT.socket(zmq.PULL)
        self.pull.connect(f"tcp://127.0.0.1:{BASE + 2 * number}")
        self.pub = CONTEXT.socket(zmq.XPUB)
        self.pub.setsockopt(zmq.LINGER, 1000)
        self.pub.connect(f"tcp://127.0.0.1:{BASE + 2 * number + 1}")
        # What is published before the subscription has come is lost.
        assert self.pub.poll(WAIT * 1000), "the server never subscribed"
        self.pub.recv()

    def receive(self, wait=WAIT):
        assert self.pull.poll(wait * 1000), "no message for the handler"
        return Message(self.pull.recv())

    def request(self):
        """The next message that is no notice of an earlier check's connection."""
        while True:
            message = self.receive()
            if message.path != b"@*":
                return message

    def notice_of(self, connection):
        while True:
            message = self.receive()
            if message.path == b"@*" and message.id == connection:
                return message

    def silent(self, wait=0.3):
        while self.pull.poll(wait * 1000):
            message = Message(self.pull.recv())
            if message.path != b"@*":
                return False
        return True

    def has_notice(self, connection, wait=0.5):
        end = time.monotonic() + wait
        while time.monotonic() < end:
            if self.pull.poll(50):
                message = Message(self.pull.recv())
                if message.path == b"@*" and message.id == connection:
                    return True
        return False

    def send(self, ids, body):
        ids = b" ".join(ids)
        self.pub.send(b"uuid-1 %d:%s, %s" % (len(ids), ids, body))

    def answer(self, message, body=b"ok", more=b""):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (len(body), more)
        self.send([message.id], head + body)

    def control(self, connection, argument):
        payload = b"3:ctl,%d:%s}" % (len(argument), argument)
        ids = b"X " + connection
        self.pub.send(b"uuid-1 %d:%s, %d:%s]" % (len(ids), ids, len(payload), payload))

    def close(self):
        self.pull.close()
        self.pub.close()


class Client:
    """A client with control over every byte."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.socket.settimeout(WAIT)
        self.unread = b""

    def send(self, data):
        self.socket.sendall(data)

    def get(self, path, host="one.test", more="", method="GET", body=b""):
        self.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode() + body)

    def read(self, count):
        while len(self.unread) < count:
            data = self.socket.recv(65536)
            assert data, ("closed", self.unread)
            self.unread += data
        data, self.unread = self.unread[:count], self.unread[count:]
        return data

    def until(self, mark):
        while mark not in self.unread:
            data = self.socket.recv(65536)
            assert data, ("closed", self.unread)
            self.unread += data
        at = self.unread.index(mark) + len(mark)
        data, self.unread = self.unread[:at], self.unread[at:]
        return data

    def response(self, to_head=False):
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
        length = 0 if to_head or status in (304, 204) else int(headers.get("content-length", 0))
        return status, headers, self.read(length)

    def is_closed(self):
        try:
            while data := self.socket.recv(65536):
                self.unread += data
        except ConnectionResetError:
            pass
        return True

    def frame(self, first, payload, masked=True):
        key = b"abcd"
        length = len(payload)
        head = bytes([first, (128 if masked else 0) | (length if length < 126 else 126 if length < 65536 else 127)])
        if 126 <= length < 65536:
            head += struct.pack("!H", length)
        elif length >= 65536:
            head += struct.pack("!Q", length)
        if masked:
            payload = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
            head += key
        self.send(head + payload)

    def close(self):
        self.socket.close()


def control(data):
    request = CONTEXT.socket(zmq.REQ)
    request.setsockopt(zmq.LINGER, 0)
    request.connect(f"ipc://{DIRECTORY}/control")
    request.send(data)
    assert request.poll(WAIT * 1000), "the control port does not answer"
    reply = request.recv()
    request.close()
    return reply


CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


@check
def json_request(one, _two):
    client = Client()
    client.get("/json/room?a=1&b=%20", more='X-Mark: "q\\"\r\nX-Forwarded-For: 9.9.9.9\r\nContent-Length: 5\r\n', method="POST", body=b"hello")
    message = one.request()
    assert message.ident == b"one" and message.path == b"/json/room" and message.body == b"hello" and message.is_json
    assert list(message.headers)[0] == "PATH"
    expected = {
        "PATH": "/json/room", "METHOD": "POST", "VERSION": "HTTP/1.1", "URI": "/json/room?a=1&b=%20", "QUERY": "a=1&b=%20",
        "PATTERN": "/json", "URL_SCHEME": "http", "REMOTE_ADDR": "127.0.0.1", "host": "one.test", "x-mark": '"q\\"',
        "x-forwarded-for": "127.0.0.1", "content-length": "5",
    }
    assert message.headers == expected, message.headers
    one.answer(message, b"thanks")
    assert client.response()[2] == b"thanks"
    client.get("/json")
    again = one.request()
    assert again.id == message.id and "QUERY" not in again.headers and again.body == b""
    one.answer(again)
    assert client.response()[0] == 200


@check
def tnetstring_request(_one, two):
    client = Client()
    client.get("/map/x", more="X-A: 1\r\nX-A: 2\r\n")
    message = two.request()
    assert not message.is_json and message.ident == b"two"
    assert message.headers["x-a"] == ["1", "2"] and message.headers["METHOD"] == "GET", message.headers
    two.answer(message)
    assert client.response()[2] == b"ok"


@check
def the_answer_is_written_as_it_is(one, _two):
    client = Client()
    client.get("/json")
    message = one.request()
    one.send([message.id], b"no HTTP at all")
    one.send([message.id], b", and more")
    assert client.read(24) == b"no HTTP at all, and more"


@check
def many_connections_by_one_message(one, _two):
    clients = [Client() for _ in range(20)]
    ids = []
    for client in clients:
        client.get("/json")
        ids.append(one.request().id)
    assert len(set(ids)) == 20
    one.send(ids, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    assert all(client.response()[2] == b"hi" for client in clients)


@check
def an_id_that_is_not_there_brings_a_notice(one, _two):
    client = Client()
    client.get("/json")
    message = one.request()
    one.send([b"4711", message.id], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    assert client.response()[2] == b"hi"
    notice = one.notice_of(b"4711")
    assert notice.raw == b'one 4711 @* 17:{"METHOD":"JSON"},21:{"type":"disconnect"},', notice.raw


@check
def a_client_that_leaves_brings_a_notice(one, two):
    client = Client()
    client.get("/map/x")
    two.answer(two.request())
    client.response()
    client.get("/json")
    message = one.request()
    client.close()
    assert one.notice_of(message.id).is_disconnect()
    assert not two.has_notice(message.id)
    client = Client()
    client.get("/map/x")
    message = two.request()
    client.close()
    assert two.notice_of(message.id).raw == b'two %s @* 16:6:METHOD,4:JSON,}21:{"type":"disconnect"},' % message.id


@check
def an_empty_body_closes_without_notice(one, _two):
    client = Client()
    client.get("/json")
    message = one.request()
    one.answer(message, b"bye")
    one.send([message.id], b"")
    assert client.response()[2] == b"bye" and client.is_closed()
    assert not one.has_notice(message.id)


@check
def orders_of_handlers(one, _two):
    client = Client()
    client.get("/json")
    message = one.request()
    one.control(message.id, b"10:keep-alive,4:true!")
    one.answer(message)
    assert client.response()[0] == 200
    one.control(message.id, b"6:cancel,4:true!")
    assert client.is_closed() and not one.has_notice(message.id)


@check
def bad_messages_are_dropped(one, _two):
    client = Client()
    client.get("/json")
    message = one.request()
    for bad in [b"", b"x", b"uuid-1 9:1, x", b"uuid-1 0:, x", b"uuid-1 1:x, x", b"uuid-1 %d:%s, x" % (257, b" ".join([b"1"] * 129))]:
        one.pub.send(bad)
    one.answer(message, b"still here")
    assert client.response()[2] == b"still here"


@check
def requests_are_passed_on_before_answers(one, _two):
    client = Client()
    client.send(b"GET /json/1 HTTP/1.1\r\nHost: one.test\r\n\r\nGET /json/2 HTTP/1.1\r\nHost: one.test\r\n\r\n")
    first, second = one.request(), one.request()
    assert (first.path, second.path) == (b"/json/1", b"/json/2") and first.id == second.id
    one.answer(first, b"1")
    one.answer(second, b"2")
    assert (client.response()[2], client.response()[2]) == (b"1", b"2")


@check
def another_target_on_the_same_connection(one, _two):
    client = Client()
    client.get("/json")
    message = one.request()
    one.answer(message)
    client.response()
    client.get("/files/a.txt")
    assert client.response()[2] == b"file a\n"
    one.answer(message, b"late")
    assert client.response()[2] == b"late"
    client.close()
    assert one.notice_of(message.id).is_disconnect()


@check
def the_body_is_asked_for(one, _two):
    client = Client()
    client.get("/json", more="Content-Length: 2\r\nExpect: 100-continue\r\n", method="POST")
    assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
    client.send(b"hi")
    message = one.request()
    assert message.body == b"hi"
    one.answer(message)
    assert client.response()[0] == 200


WEBSOCKET = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


def websocket(one):
    client = Client()
    client.get("/json", more=WEBSOCKET)
    message = one.request()
    assert message.headers["METHOD"] == "WEBSOCKET_HANDSHAKE" and message.body == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    one.send([message.id], head + message.body + b"\r\n\r\n")
    assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
    return client, message


@check
def websocket_messages(one, _two):
    client, handshake = websocket(one)

    def arrives(flags, body):
        message = one.request()
        assert message.headers["METHOD"] == "WEBSOCKET" and message.headers["FLAGS"] == flags, message.headers
        assert message.body == body and message.id == handshake.id and message.headers["host"] == "one.test"

    client.frame(0x81, b"hello")
    arrives("0x81", b"hello")
    client.frame(0x82, b"\x00\xff")
    arrives("0x82", b"\x00\xff")
    client.frame(0x89, b"ping")
    arrives("0x89", b"ping")
    client.frame(0x8A, b"")
    arrives("0x8A", b"")
    client.frame(0x01, b"one ")
    client.frame(0x89, b"between")
    client.frame(0x80, b"two")
    arrives("0x89", b"between")
    arrives("0x81", b"one two")
    client.frame(0x82, b"x" * 70000)
    arrives("0x82", b"x" * 70000)
    one.send([handshake.id], b"\x81\x02hi")
    assert client.read(4) == b"\x81\x02hi"
    client.frame(0x88, b"\x03\xe8bye")
    arrives("0x88", b"\x03\xe8bye")
    one.send([handshake.id], b"\x88\x02\x03\xe8")
    one.send([handshake.id], b"")
    assert client.read(4) == b"\x88\x02\x03\xe8" and client.is_closed() and not one.has_notice(handshake.id)


@check
def a_websocket_frame_without_mask_ends_it(one, _two):
    client, handshake = websocket(one)
    client.frame(0x81, b"hello", masked=False)
    assert client.is_closed() and one.notice_of(handshake.id).is_disconnect()


@check
def no_websocket_without_its_headers(one, _two):
    client = Client()
    client.get("/json", more=WEBSOCKET.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""))
    message = one.request()
    assert message.headers["METHOD"] == "GET"
    one.answer(message)
    assert client.response()[0] == 200


@check
def routes_and_hosts(one, _two):
    for host, path, expected in [
        ("one.test", "/pattern/v1/x", "/pattern/(v[12])/.*$"),
        ("one.test", "/pattern/v3/x", None),
        ("one.test", "/jsonx", "/json"),
        ("one.test:8080", "/json", "/json"),
        ("x.one.test", "/json", "/json"),
        ("unknown.test", "/json", "/json"),
        ("aa.wild.test", "/w", "/w"),
        ("ab.wild.test", "/w", None),
        ("one.test", "/nothing", None),
    ]:
        client = Client()
        client.get(path, host=host)
        if expected is None:
            # Where no route is, Mongrel2 says 404; waft says 502, as for all its routes.
            assert client.response()[0] == (404 if SERVER == "mongrel2" else 502), (host, path)
        else:
            message = one.request()
            assert message.headers["PATTERN"] == expected, (message.headers, host, path)
            one.answer(message)
            assert client.response()[0] == 200
        client.close()


@check
def files(_one, _two):
    client = Client()
    client.get("/files/a.txt")
    status, headers, body = client.response()
    assert (status, body, headers["content-type"]) == (200, b"file a\n", "text/plain"), headers
    etag, modified = headers["etag"], headers["last-modified"]
    client.get("/files/a.txt", method="HEAD")
    status, headers, _ = client.response(to_head=True)
    assert status == 200 and headers["content-length"] == "7"
    client.get("/files/a.txt", more=f"If-None-Match: {etag}\r\n")
    assert client.response()[0] == 304
    client.get("/files/a.txt", more=f"If-Modified-Since: {modified}\r\n")
    assert client.response()[0] == 304
    client.get("/files/a.txt", more="If-Match: nonsense\r\n")
    assert client.response()[0] == 412
    client.close()
    client = Client()
    client.get("/files/sub/")
    assert client.response()[2] == b"index of sub\n"
    client.close()
    for path, method, expected in [
        ("/files/sub", "GET", 301), ("/files/none.txt", "GET", 404), ("/files/../secret", "GET", 404),
        ("/files/a.txt", "POST", 405), ("/files/%2e%2e/secret", "GET", 404),
    ]:
        client = Client()
        client.get(path, method=method)
        status = client.response()[0]
        assert status == expected, (path, method, status)
        client.close()


@check
def a_proxy(_one, _two):
    server = socket.create_server(("127.0.0.1", BASE + 20))
    client = Client()
    client.get("/proxy/x?y=1", host="one.test")
    back, _ = server.accept()
    back.settimeout(WAIT)
    head = b""
    while b"\r\n\r\n" not in head:
        head += back.recv(65536)
    assert head.startswith(b"GET /proxy/x?y=1 HTTP/1.1\r\n") and b"host: one.test" in head.lower(), head
    back.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback")
    assert client.response()[2] == b"back"
    back.close()
    server.close()
    client.close()
    client = Client()
    client.get("/proxy/x")
    assert client.response()[0] == 502


@check
def the_control_port(one, _two):
    client = Client()
    client.get("/json")
    message = one.request()
    headers = lambda reply: [name.decode() for name in tnet(reply)[0]["headers"]]
    now = int(tnet(control(b"10:4:time,0:}]"))[0]["rows"][0][0])
    assert abs(now - time.time()) < 60
    net = control(b"26:6:status,13:4:what,3:net,}]")
    assert headers(net) == ["id", "fd", "type", "last_ping", "last_read", "last_write", "bytes_read", "bytes_written"]
    assert int(message.id) in [row[0] for row in tnet(net)[0]["rows"]]
    assert headers(control(b"28:6:status,15:4:what,5:tasks,}]")) == ["id", "system", "name", "state", "status"]
    assert tnet(control(b"10:4:uuid,0:}]"))[0]["rows"] == [[b"u-1"]]
    assert headers(control(b"10:4:info,0:}]"))[:3] == ["port", "bind_addr", "uuid"]
    assert len(tnet(control(b"10:4:help,0:}]\0"))[0]["rows"]) == 10
    assert control(b"10:4:noop,0:}]") == b"74:4:code,18:CALLBACK_NOT_FOUND,5:error,33:Callback requested was not found.,}"
    argument = b"2:id,%d:%s#" % (len(message.id), message.id)
    kill = b"4:kill,%d:%s}" % (len(argument), argument)
    assert control(b"%d:%s]" % (len(kill), kill)) == b"40:7:headers,9:6:status,]4:rows,8:5:2:OK,]]}"
    assert client.is_closed() and not one.has_notice(message.id)
    assert b"INVALID_ARGUMENT" in control(b"22:4:kill,11:2:id,3:999#}]")


@check
def the_access_log(one, _two):
    client = Client()
    mark = f"/json/logged{os.getpid()}"
    client.get(mark + "?q=1", more="Content-Length: 3\r\n", method="POST", body=b"abc")
    one.answer(one.request())
    client.response()
    port = client.socket.getsockname()[1]
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        with open(f"{DIRECTORY}/logs/access.log", "rb") as log:
            lines = [line for line in log if mark.encode() in line]
        if lines:
            break
        time.sleep(0.05)
    values, rest = tnet(lines[0])
    assert rest == b"\n"
    host, address, logged, at, *rest = values
    assert (host, address, logged) == (b"one.test", b"127.0.0.1", port), values
    assert abs(at - time.time()) < 60
    assert rest == [b"POST", mark.encode(), b"HTTP/1.1", 200, 3], rest


@check
def uploads_to_a_file(one, _two):
    body = os.urandom(100_000)
    client = Client()
    forged = "X-Mongrel2-Upload-Done: /etc/passwd\r\n"
    client.get("/json", more=f"Content-Length: {len(body)}\r\n{forged}", method="POST", body=body[:50_000])
    start = one.request()
    name = start.headers["x-mongrel2-upload-start"]
    assert start.body == b"" and name.startswith(f"{DIRECTORY}/upload."), start.headers
    if SERVER == "waft":
        assert "x-mongrel2-upload-done" not in start.headers
    client.send(body[50_000:])
    done = one.request()
    assert done.headers["x-mongrel2-upload-done"] == done.headers["x-mongrel2-upload-start"] == name
    with open(name, "rb") as stored:
        assert stored.read() == body
    assert os.stat(name).st_mode & 0o777 == 0o640
    os.remove(name)
    one.answer(done, b"stored")
    assert client.response()[2] == b"stored"
    client.get("/json", more="Transfer-Encoding: chunked\r\n", method="POST", body=b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n")
    start, done = one.request(), one.request()
    with open(done.headers["x-mongrel2-upload-done"], "rb") as stored:
        assert stored.read() == b"hello!"
    one.answer(done, b"stored")
    assert client.response()[2] == b"stored"
    client.get("/json", more=f"Content-Length: {len(body)}\r\n", method="POST")
    one.send([one.request().id], b"")
    assert client.is_closed()


@check
def uploads_in_pieces(_one, two):
    body = os.urandom(60_000)
    client = Client()
    client.get("/map/x", more=f"Content-Length: {len(body)}\r\n", method="POST")
    first = two.request()
    assert first.headers["UPLOAD_STREAM"] == "0" and first.headers["METHOD"] == "POST", first.headers
    client.send(body)
    got = first.body
    assert two.silent()
    is_done = False
    while not is_done:
        two.control(first.id, b"7:credits,5:10000#")
        limit = len(got) + 10_000
        while len(got) < min(limit, len(body)):
            piece = two.request()
            assert piece.headers["UPLOAD_STREAM"] == str(len(got)), (piece.headers, len(got))
            got += piece.body
            is_done = piece.headers.get("UPLOAD_STREAM_DONE") == "1"
            assert len(got) <= limit
            if SERVER == "mongrel2" and len(got) == len(body) and not is_done:
                is_done = two.request().headers.get("UPLOAD_STREAM_DONE") == "1"
    assert got == body
    two.answer(first, b"all of it")
    assert client.response()[2] == b"all of it"
    client.close()


@check
def download_credits(_one, two):
    client = Client()
    client.get("/map/x")
    message = two.request()
    assert message.headers["DOWNLOAD_CREDITS"] == "102400"
    two.answer(message, b"x" * 100)
    client.response()
    notice = two.notice_of(message.id)
    size = str(100 + len("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"))
    assert notice.headers == {"METHOD": "JSON", "DOWNLOAD_CREDITS": size}, notice.headers
    client.get("/map/x")
    assert "DOWNLOAD_CREDITS" not in two.request().headers


PIECEWISE = ["uploads_in_pieces", "download_credits"]

one, two = Handler(0), Handler(1)
failed = 0
for function in CHECKS:
    name = function.__name__
    if name not in WANTED if WANTED else name in PIECEWISE:
        continue
    try:
        function(one, two)
        print("holds", name, flush=True)
    except Exception as error:
        failed += 1
        line = error.__traceback__.tb_next.tb_lineno if error.__traceback__.tb_next else 0
        print("FAILS", name, "line", line, type(error).__name__, error, flush=True)
    for handler in (one, two):
        while handler.pull.poll(20):
            handler.pull.recv()
sys.exit(1 if failed else 0)
