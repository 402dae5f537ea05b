"""WebSockets over HTTP and direct, and the messages by which a backend subscribes its clients."""

import asyncio
import json

from peers import Reply, accept_key, close_content, events, frame, read_frame, shown
from world import scenario, text

TYPE = [("Content-Type", "application/websocket-events")]
GRIP = [*TYPE, ("Sec-WebSocket-Extensions", "grip")]
OVER = "{target},over_http"


def said(*list_of, headers=TYPE, status="200 OK"):
    return Reply(status, events(*list_of), headers)


def control(**message):
    return "TEXT", "c:" + json.dumps(message)


def talk(name, replies, sends=(), receives=1, route=OVER, headers=(), closed=False, **options):
    """A client that sends messages and shows as many as it gets."""

    async def play(w):
        def fill(reply):
            pairs = [(key, value.replace("KEYKEY", w.key)) for key, value in reply.headers]
            return Reply(reply.status, reply.body.replace(b"KEYKEY", w.key.encode()), pairs, reply.raw)

        w.reply(*(fill(reply) for reply in replies))
        socket = await w.websocket("/ws?a=b", headers)
        if not socket.status.startswith("101"):
            await socket.closed()
            return
        for number, message in enumerate(sends):
            await socket.message(*message)
            await w.asked(number + 2)
        for _ in range(receives):
            await socket.receive()
        if closed:
            await socket.closed()

    scenario(name, route, **options)(play)


OPEN = said("OPEN")
talk("over HTTP: a message and its echo", [OPEN, said(("TEXT", "echo"))], [("TEXT", "hello")])
talk("over HTTP: a binary message", [OPEN, said(("BINARY", b"\x01\xff"))], [("BINARY", b"\x00\xfe")])
talk("over HTTP: an empty message", [OPEN, said(("TEXT", ""))], [("TEXT", "")])
talk("over HTTP: a message without content", [OPEN, said("TEXT")], [("TEXT", "x")])
talk("over HTTP: a ping of the client", [OPEN, said(("PONG", "p"))], [("PING", "p")])
talk("over HTTP: a ping without content", [OPEN, said("PONG")], [("PING", "")])
talk("over HTTP: a ping of the backend", [said("OPEN", ("PING", "p"))])
talk("over HTTP: many events", [said("OPEN", ("TEXT", "1"), ("BINARY", "2"), ("TEXT", "3"))], receives=3)
talk("over HTTP: an unknown event", [said("OPEN", ("OTHER", "1"), ("TEXT", "3"))])
talk("over HTTP: lower case events", [Reply(body="OPEN\r\ntext 1\r\na\r\nTEXT 1\r\nb\r\n", headers=TYPE)])
talk("over HTTP: without the last line end", [Reply(body="OPEN\r\nTEXT 2\r\nhi", headers=TYPE)])
talk("over HTTP: upper case lengths", [Reply(body="OPEN\r\nTEXT A\r\n0123456789\r\n", headers=TYPE)])
talk("over HTTP: headers of the handshake", [said("OPEN", headers=[*TYPE, ("X-A", "b"), ("Set-Cookie", "c")])], receives=0,
     headers=["Origin: http://o", "Cookie: a=b", "Meta-User: forged", "Accept: text/plain", "Connection-Id: mine"])
talk("over HTTP: a subprotocol", [said("OPEN", headers=[*TYPE, ("Sec-WebSocket-Protocol", "chat")])], receives=0,
     headers=["Sec-WebSocket-Protocol: chat, other"])
talk("over HTTP: meta", [said("OPEN", headers=[*TYPE, ("Set-Meta-User", "bob"), ("Set-Meta-Gone", "x")]),
     said(headers=[*TYPE, ("Set-Meta-Gone", ""), ("Set-Meta-user", "alice")]), said(("TEXT", "end"))],
     [("TEXT", "1"), ("TEXT", "2")])
talk("over HTTP: a close of the client", [OPEN, said(("CLOSE", close_content(1001, "bye")))],
     [("CLOSE", close_content(1000, "done"))], closed=True)
talk("over HTTP: a close of the client without a code", [OPEN, said("CLOSE")], [("CLOSE", b"")], closed=True)
talk("over HTTP: a close that is not answered", [OPEN, said()], [("CLOSE", close_content(1000))], closed=True)
talk("over HTTP: a close of the backend", [said("OPEN", ("CLOSE", close_content(4000, "go")))])
talk("over HTTP: a close of the backend without a code", [said("OPEN", "CLOSE")])
talk("over HTTP: events after a close", [said("OPEN", "CLOSE", ("TEXT", "x"))], receives=1)
talk("over HTTP: a disconnect of the backend", [OPEN, said("DISCONNECT")], [("TEXT", "x")])
talk("over HTTP: a disconnect at once", [said("OPEN", "DISCONNECT")])
talk("over HTTP: a refusal", [Reply("403 Forbidden", "nope\n", [("Content-Type", "text/plain"), ("X-A", "b")])])
talk("over HTTP: a refusal with a redirect", [Reply("302 Found", "", [("Location", "/x")])])
talk("over HTTP: another content type", [Reply(body="hello")])
talk("over HTTP: a content type with parameters", [Reply(body=events("OPEN"), headers=[
    ("Content-Type", "application/websocket-events; charset=utf-8")])])
talk("over HTTP: an empty answer", [said()])
talk("over HTTP: a first event that is not OPEN", [said(("TEXT", "x"))])
talk("over HTTP: a malformed answer", [Reply(body="OPEN\r\nTEXT zz\r\nx\r\n", headers=TYPE)])
talk("over HTTP: an error later", [OPEN, Reply("500 Broken", "x")], [("TEXT", "x")])
talk("over HTTP: another type later", [OPEN, Reply(body="x")], [("TEXT", "x")])
talk("over HTTP: a second OPEN", [OPEN, OPEN], [("TEXT", "x")])
talk("over HTTP: a malformed answer later", [OPEN, Reply(body="TEXT zz\r\n", headers=TYPE)], [("TEXT", "x")])
talk("over HTTP: no backend", [], route="{refused},over_http")
talk("over HTTP: no backend, with debug texts", [], route="{refused},over_http", config="other")
talk("over HTTP: the second target", [OPEN], route="{refused},over_http {target},over_http", receives=0)
talk("over HTTP: an unknown host", [], lines=[])
talk("over HTTP: a message of 30,000 bytes", [OPEN, said(("TEXT", "0123456789" * 2_000))], [("TEXT", "0123456789" * 3_000)])
talk("over HTTP: one event at a time", [OPEN, said(("TEXT", "1")), said(("TEXT", "2"))], [("TEXT", "a"), ("TEXT", "b")],
     receives=2, route="{target},over_http,one_event")
talk("over HTTP: a route that is not for GRIP", [OPEN, said(("TEXT", "echo"))], [("TEXT", "hello")],
     route=",no_grip {target},over_http")
talk("over HTTP: control messages without the extension", [said("OPEN", control(type="subscribe", channel="KEYKEY"))])
talk("over HTTP: messages with the prefix", [said("OPEN", ("TEXT", "m:for you"), ("TEXT", "plain"), headers=GRIP)])
talk("over HTTP: another prefix", [said("OPEN", ("TEXT", "mine-for you"), headers=[
    *TYPE, ("Sec-WebSocket-Extensions", 'grip; message-prefix="mine-"')])])
talk("over HTTP: a control message that is no JSON", [said("OPEN", ("TEXT", "c:{"), ("TEXT", "m:after"), headers=GRIP)])
talk("over HTTP: a control message of an unknown type",
     [said("OPEN", control(type="whatever"), ("TEXT", "m:after"), headers=GRIP)])
talk("over HTTP: a detach", [said("OPEN", control(type="detach"), headers=GRIP), said(("TEXT", "m:no"))], receives=0)


@scenario("over HTTP: fragments are joined", OVER)
async def play(w):
    w.reply(OPEN, said(("TEXT", "whole")))
    socket = await w.websocket()
    await socket.message("TEXT", "one ", fin=False)
    await socket.message("CONT", "two ", fin=False)
    await socket.message("CONT", "three")
    await socket.receive()


@scenario("over HTTP: messages during a request are bundled", OVER)
async def play(w):  # noqa: F811
    async def slowly(_request, _reader, _writer):
        await asyncio.sleep(0.4)
        return said(("TEXT", "first"))

    w.reply(OPEN, slowly, said(("TEXT", "rest")))
    socket = await w.websocket()
    await socket.message("TEXT", "1")
    await w.asked(2)
    for content in "234":
        await socket.message("TEXT", content)
    await socket.receive()
    await socket.receive()


@scenario("over HTTP: the backend is told of a client that has gone", OVER)
async def play(w):  # noqa: F811
    w.reply(OPEN, said("DISCONNECT"))
    socket = await w.websocket()
    socket.close()
    await w.asked(2)


@scenario("over HTTP: events that a client makes itself", OVER)
async def play(w):  # noqa: F811
    await w.fetch("POST /", ["Content-Type: application/websocket-events"], "OPEN\r\n")


@scenario("over HTTP: a plain request to such a target", OVER)
async def play(w):  # noqa: F811
    await w.fetch("POST /", body="x")


def subscribed(name, opening, publish, receives=1, route=OVER, config="stock", mode="ws", channel=""):
    async def play(w):
        w.reply(Reply(opening.status, opening.body.replace(b"KEYKEY", w.key.encode()), opening.headers), said())
        socket = await w.websocket()
        await w.held(mode, w.channel(channel))
        for item in publish:
            await w.publish_items([{**item, "channel": item.get("channel", "KEYKEY").replace("KEYKEY", w.key)}])
        for _ in range(receives):
            await socket.receive()

    scenario(name, route, config)(play)


def item(content, channel="KEYKEY", **fields):
    return {"channel": channel, "formats": {"ws-message": content if isinstance(content, dict) else {"content": content}},
            **fields}


SUBSCRIBE = said("OPEN", control(type="subscribe", channel="KEYKEY"), headers=GRIP)
subscribed("published: text", SUBSCRIBE, [item("hello")])
subscribed("published: an empty text", SUBSCRIBE, [item("")])
subscribed("published: binary", SUBSCRIBE, [item({"content-bin": "AAH/"})])
subscribed("published: text in base64", SUBSCRIBE, [item({"type": "text", "content-bin": "aGk="})])
subscribed("published: a binary type", SUBSCRIBE, [item({"type": "binary", "content": "hi"})])
subscribed("published: a ping", SUBSCRIBE, [item({"type": "ping", "content": "p"})])
subscribed("published: a ping with an empty content", SUBSCRIBE, [item({"type": "ping", "content": ""})])
subscribed("published: a ping without content", SUBSCRIBE, [item({"type": "ping"}), item("after")])
subscribed("published: a pong", SUBSCRIBE, [item({"type": "pong", "content": "p"})])
subscribed("published: a close", SUBSCRIBE, [item({"action": "close", "code": 4001, "reason": "go"})])
subscribed("published: a close without a code", SUBSCRIBE, [item({"action": "close"})])
subscribed("published: a hint is ignored", SUBSCRIBE, [item({"action": "hint"}), item("after")])
subscribed("published: 100,000 bytes", SUBSCRIBE, [item("0123456789" * 10_000)])
subscribed("published: messages in order", SUBSCRIBE, [item(str(number), id=str(number)) for number in range(5)], receives=5)
subscribed("published: the same id twice", SUBSCRIBE, [item("1", id="1"), item("again", id="1"), item("2", id="2")], receives=2)
subscribed("published: with filters", said("OPEN", control(type="set-meta", name="user", value="me"), control(
    type="subscribe", channel="KEYKEY", filters=["skip-self"]), headers=GRIP),
    [item("own", meta={"sender": "me"}), item("other", meta={"sender": "you"})])
subscribed("published: with variables", said("OPEN", control(type="set-meta", name="user", value="me"), control(
    type="subscribe", channel="KEYKEY", filters=["var-subst"]), headers=GRIP), [item("hello %(user)s")])
subscribed("published: to one of two channels", said("OPEN", control(type="subscribe", channel="KEYKEYa"), control(
    type="subscribe", channel="KEYKEYb"), headers=GRIP), [item("a", "KEYKEYa"), item("b", "KEYKEYb"), item("c", "KEYKEYc")],
    receives=2, channel="b")
subscribed("published: to a route with a prefix", said("OPEN", control(type="subscribe", channel="-a"), headers=GRIP),
           [item("no", "-a"), item("yes", "KEYKEY-a")], route=",prefix={key} {target},over_http", channel="-a")
subscribed("published: more channels than are allowed", said("OPEN", *(
    control(type="subscribe", channel=f"KEYKEY{name}") for name in "abc"), headers=GRIP),
    [item("c", "KEYKEYc"), item("b", "KEYKEYb")], config="other", channel="b")
subscribed("published: a channel of the target", said("OPEN", headers=GRIP), [item("hello", "KEYKEYsub")],
           route="{target},over_http,sub={key}sub", channel="sub")


@scenario("published: not after unsubscribing", OVER)
async def play(w):  # noqa: F811
    w.reply(
        said("OPEN", control(type="subscribe", channel=w.channel()), control(type="subscribe", channel=w.channel("b")),
             headers=GRIP),
        said(control(type="unsubscribe", channel=w.channel()), ("TEXT", "m:done")),
    )
    socket = await w.websocket()
    await w.held("ws")
    await socket.message("TEXT", "leave")
    await socket.receive()
    await w.told("sub", mode="ws", channel=w.channel(), unavailable=True)
    await w.publish(text("no"))
    await w.publish(text("end"), w.channel("b"))
    await socket.receive()


@scenario("published: a refresh asks the backend", OVER, counted=True)
async def play(w):  # noqa: F811
    w.reply(said("OPEN", control(type="subscribe", channel=w.channel()), headers=GRIP), said(("TEXT", "m:refreshed")))
    socket = await w.websocket()
    await w.held("ws")
    await w.publish({"ws-message": {"action": "refresh"}})
    await socket.receive()


@scenario("published: keep-alives", OVER)
async def play(w):  # noqa: F811
    message = {"type": "keep-alive", "timeout": 1, "content": "ping"}
    w.reply(said("OPEN", control(**message), headers=GRIP))
    socket = await w.websocket()
    await socket.receive()
    await socket.receive()


@scenario("published: keep-alives that are pings", OVER)
async def play(w):  # noqa: F811
    message = {"type": "keep-alive", "timeout": 1, "message-type": "ping", "content": "p"}
    w.reply(said("OPEN", control(**message), headers=GRIP))
    socket = await w.websocket()
    await socket.receive()


# Direct WebSockets: the backend is one itself.


def serving(play, answer=True, headers=()):
    """A backend that accepts, notes the frames it gets with `note`, and does what `play` says."""

    async def serve(request, reader, writer):
        key = request.header("Sec-WebSocket-Key", "")
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
                 f"Sec-WebSocket-Accept: {accept_key(key) if answer else 'wrong'}"]
        lines += [f"{name}: {value}" for name, value in headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await play(reader, writer)
        await writer.drain()

    return serve


def direct(name, backend, client, headers=(), answer=True, offered=(), **options):
    async def play(w):
        async def side(reader, writer):
            async def receive():
                try:
                    kind, _fin, payload = await asyncio.wait_for(read_frame(reader), 3)
                    w.note("far side", f"{kind} {shown(payload)}".strip())
                except asyncio.TimeoutError:
                    w.note("far side", "nothing came")
                except (asyncio.IncompleteReadError, ConnectionError):
                    w.note("far side", "dropped")

            await backend(receive, lambda *what: writer.write(frame(*what)))

        # The key is made anew for the backend, so it is not compared.
        w.reply(serving(side, answer, headers))
        socket = await w.websocket("/ws?a=b", offered)
        if socket.status.startswith("101"):
            await client(socket)
        for block in w._notes.get("backend", []):
            block[:] = [line for line in block if not line.startswith("  Sec-WebSocket-Key")]

    scenario(f"direct: {name}", **options)(play)


async def echo(receive, send):
    await receive()
    send("TEXT", "echo")
    await receive()


async def says_and_shows(socket):
    await socket.message("TEXT", "hello")
    await socket.receive()


async def shows(socket):
    await socket.receive()


direct("a message and its echo", echo, says_and_shows)
direct("headers of the handshake", echo, says_and_shows, [("X-A", "b"), ("Set-Cookie", "c")],
       offered=["Origin: http://o", "Cookie: a=b", "X-Mine: 1"])
direct("a subprotocol", echo, says_and_shows, [("Sec-WebSocket-Protocol", "chat")], offered=["Sec-WebSocket-Protocol: chat"])
direct("an accept key that is wrong", echo, says_and_shows, answer=False)


async def binary(receive, send):
    await receive()
    send("BINARY", b"\x00\xff")
    await receive()


async def says_binary(socket):
    await socket.message("BINARY", b"\xff\x00")
    await socket.receive()


direct("binary messages", binary, says_binary)


async def pongs(receive, send):
    await receive()
    send("PONG", "p")
    await receive()


async def pings(socket):
    await socket.message("PING", "p")
    await socket.receive()


direct("a ping of the client", pongs, pings)


async def ping_first(receive, send):
    send("PING", "q")
    await receive()


async def answers_ping(socket):
    await socket.receive()
    await socket.message("PONG", "q")
    await asyncio.sleep(0.2)


direct("a ping of the backend", ping_first, answers_ping)


async def closes(receive, send):
    send("CLOSE", close_content(4000, "go"))
    await receive()


async def sees_close(socket):
    await socket.receive()
    await socket.message("CLOSE", close_content(4000, "go"))
    await socket.closed()
    await asyncio.sleep(0.2)


direct("a close of the backend", closes, sees_close)


async def is_closed(receive, send):
    await receive()
    send("CLOSE", close_content(1000, "done"))


async def closes_first(socket):
    await socket.message("CLOSE", close_content(1000, "done"))
    await socket.receive()
    await socket.closed()


direct("a close of the client", is_closed, closes_first)


async def leaves(receive, send):
    await receive()


direct("a backend that goes", leaves, says_and_shows)


async def client_leaves(socket):
    await socket.message("TEXT", "hello")
    await asyncio.sleep(0.1)
    socket.close()
    await asyncio.sleep(0.3)


async def sees_end(receive, send):
    await receive()
    await receive()


direct("a client that goes", sees_end, client_leaves)


async def fragments(receive, send):
    send("TEXT", "one ", False)
    send("CONT", "two", True)
    await receive()


direct("fragments of the backend", fragments, shows)


async def subscribes(receive, send):
    send("TEXT", "m:welcome")
    send("TEXT", "not for you")
    await receive()
    send("TEXT", "m:echo")
    await receive()


direct("the extension", subscribes, lambda socket: twice(socket), [("Sec-WebSocket-Extensions", "grip")])


async def twice(socket):
    await socket.receive()
    await socket.message("TEXT", "hello")
    await socket.receive()


@scenario("direct: a backend that subscribes")
async def play(w):  # noqa: F811
    async def side(reader, writer):
        writer.write(frame("TEXT", "c:" + json.dumps({"type": "subscribe", "channel": w.channel()})))
        await read_frame(reader)

    w.reply(serving(side, headers=[("Sec-WebSocket-Extensions", "grip")]))
    socket = await w.websocket()
    await w.held("ws")
    await w.publish(text("published"))
    await socket.receive()
    for block in w._notes["backend"]:
        block[:] = [line for line in block if not line.startswith("  Sec-WebSocket-Key")]


@scenario("direct: a backend that refuses")
async def play(w):  # noqa: F811
    w.reply(Reply("403 Forbidden", "nope\n", [("X-A", "b"), ("Content-Type", "text/plain")]))
    await w.websocket()
    w._notes.pop("backend", None)


@scenario("direct: a backend that knows no WebSockets")
async def play(w):  # noqa: F811
    w.reply(Reply(body="plain\n"))
    await w.websocket()
    w._notes.pop("backend", None)


@scenario("direct: no backend", "{refused}")
async def play(w):  # noqa: F811
    await w.websocket()


BAD = {
    "no key": ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"],
    "no version": ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
    "another version": ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                        "Sec-WebSocket-Version: 8"],
}
for name, headers in BAD.items():
    def handshake(headers):
        async def play(w):
            client = await w.send("GET /ws", headers)
            await client.response()
            await client.closed()

        return play

    scenario(f"a handshake with {name}", OVER)(handshake(headers))
