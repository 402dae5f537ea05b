"""The control side: publishing over HTTP and ZeroMQ, commands, and statistics."""

import asyncio
import json
import sys

import zmq

from peers import WAIT, Reply, events
from world import hold, scenario, text

sys.path.append(__file__.rsplit("/", 3)[0] + "/zmq")
import tnetstring  # noqa: E402


def calls(name, line="POST /publish/", headers=(), body="", raw=None):
    async def play(w):
        await w.control(line, headers, body, raw=raw)

    scenario(f"HTTP: {name}")(play)


def items(*list_of):
    return json.dumps({"items": list_of})


GOOD = {"channel": "nobody", "formats": {"http-stream": {"content": "x"}}}
calls("the root", "GET /")
calls("the root by POST", "POST /", body="x")
calls("an unknown path", "GET /none")
calls("a query", "POST /publish?x", body=items(GOOD))
calls("publish by GET", "GET /publish/")
calls("publish without a slash", "POST /publish", body=items(GOOD))
calls("publish two items", body=items(GOOD, GOOD))
calls("publish nothing", body=items())
calls("no JSON", body="{")
calls("no object", body="[]")
calls("an object without items", body="{}")
calls("items of another type", body='{"items":1}')
calls("an empty body", body="")
calls("recover", "POST /recover", body="")
calls("recover by GET", "GET /recover")
ACCEPTS = ["text/plain", "application/json", "*/*", "application/*", "text/*", "image/png", "text/plain, application/json",
           "application/json, text/plain", "image/png, application/json;q=0.1"]
for accept in ACCEPTS:
    calls(f"accepting {accept}", headers=[f"Accept: {accept}"], body=items(GOOD))
calls("an error to who accepts JSON", headers=["Accept: application/json"], body="{")
calls("an Expect header", headers=["Expect: 100-continue"], body=items(GOOD))
calls("a body without a length", raw="POST /publish/ HTTP/1.1\r\nHost: c\r\n\r\n")
calls("a length that is no number", raw="POST /publish/ HTTP/1.1\r\nHost: c\r\nContent-Length: x\r\n\r\n")
calls("a head that is no HTTP", raw="nonsense\r\n\r\n")
calls("HTTP/1.0", raw=f"POST /publish/ HTTP/1.0\r\nContent-Length: {len(items(GOOD))}\r\n\r\n{items(GOOD)}")
calls("a header above the limit", raw="GET / HTTP/1.1\r\nHost: c\r\nX-Long: " + "v" * 10_100 + "\r\n\r\n")
calls("many headers above the limit", raw="GET / HTTP/1.1\r\nHost: c\r\n" + ("X-Long: " + "v" * 500 + "\r\n") * 21 + "\r\n")
calls("a header below the limit", raw="GET / HTTP/1.1\r\nHost: c\r\nConnection: close\r\nX-Long: " + "v" * 9_000 + "\r\n\r\n")
calls("a body above the limit", raw="POST /publish/ HTTP/1.1\r\nHost: c\r\nContent-Length: 1000001\r\n\r\n")

BAD_ITEMS = {
    "of another type": 1,
    "without a channel": {"formats": {"http-stream": {"content": "x"}}},
    "with a channel of another type": {"channel": 1, "formats": {"http-stream": {"content": "x"}}},
    "without formats": {"channel": "a"},
    "with no formats": {"channel": "a", "formats": {}},
    "with formats of another type": {"channel": "a", "formats": 1},
    "with an unknown format alone": {"channel": "a", "formats": {"other": {}}},
    "with a format of another type": {"channel": "a", "formats": {"http-stream": 1}},
    "with an id of another type": {**GOOD, "id": 1},
    "with a null id": {**GOOD, "id": None},
    "with a prev-id of another type": {**GOOD, "prev-id": 1},
    "with meta of another type": {**GOOD, "meta": 1},
    "with a meta value of another type": {**GOOD, "meta": {"a": 1}},
    "with a size of another type": {**GOOD, "size": "x"},
    "with a negative size": {**GOOD, "size": -1},
    "with a no-seq of another type": {**GOOD, "no-seq": 1},
    "with a response of nothing": {"channel": "a", "formats": {"http-response": {}}},
    "with an unknown action of a response": {"channel": "a", "formats": {"http-response": {"action": "x"}}},
    "with a code of another type": {"channel": "a", "formats": {"http-response": {"code": "x", "body": ""}}},
    "with a code above 999": {"channel": "a", "formats": {"http-response": {"code": 1000, "body": ""}}},
    "with headers of another type": {"channel": "a", "formats": {"http-response": {"headers": 1, "body": ""}}},
    "with a patch of another type": {"channel": "a", "formats": {"http-response": {"body-patch": 1}}},
    "with a body of another type": {"channel": "a", "formats": {"http-response": {"body": 1}}},
    "with a stream of nothing": {"channel": "a", "formats": {"http-stream": {}}},
    "with an unknown action of a stream": {"channel": "a", "formats": {"http-stream": {"action": "x"}}},
    "with content of another type": {"channel": "a", "formats": {"http-stream": {"content": 1}}},
    "with a message of nothing": {"channel": "a", "formats": {"ws-message": {}}},
    "with an unknown type of message": {"channel": "a", "formats": {"ws-message": {"type": "x", "content": ""}}},
    "with an unknown action of a message": {"channel": "a", "formats": {"ws-message": {"action": "x"}}},
    "with a close code of another type": {"channel": "a", "formats": {"ws-message": {"action": "close", "code": "x"}}},
    "with content filters of another type": {"channel": "a", "formats": {"http-stream": {"content": "", "content-filters": 1}}},
    "with an empty channel": {**GOOD, "channel": ""},
}
for name, value in BAD_ITEMS.items():
    calls(f"an item {name}", body=items(value))


@scenario("HTTP: nothing is published when one item is bad")
async def play(w):
    w.reply(hold("stream", w.channel()))
    client = await w.stream()
    await w.held("stream")
    good = {"channel": w.channel(), "formats": {"http-stream": {"content": "good\n"}}}
    await w.publish_items([good, {"channel": w.channel()}], quiet=False)
    await w.publish(text("end"))
    await client.until("end")
    client.show()


def pushed(name, *messages, sees="end"):
    """Messages to the PULL socket; KEYKEY stands for the channel. Each is one frame, or a list of frames."""

    async def play(w):
        w.reply(hold("stream", w.channel()))
        client = await w.stream()
        await w.held("stream")
        socket = w.socket(zmq.PUSH, f"tcp://127.0.0.1:{w.program.pull}")
        for message in messages:
            frames = message if isinstance(message, list) else [message]
            await socket.send_multipart([fill(one, w) for one in frames])
        await client.until(sees)
        client.show()

    scenario(f"PULL: {name}")(play)


def fill(value, w):
    if isinstance(value, bytes):
        return value.replace(b"KEYKEY", w.key.encode())
    return value(w.key)


def tn(prefix=b"", **formats):
    return lambda key: prefix + tnetstring.dumps({"channel": key, "formats": formats})


END = tn(**{"http-stream": {"content": "end"}})
pushed("a plain tnetstring", END)
pushed("a tnetstring with its letter", tn(b"T", **{"http-stream": {"content": "end"}}))
pushed("JSON", b'J{"channel":"KEYKEY","formats":{"http-stream":{"content":"end"}}}')
pushed("JSON in base64", b'J{"channel":"KEYKEY","formats":{"http-stream":{"content-bin":"ZW5k"}}}')
pushed("the old form", lambda key: tnetstring.dumps({"channel": key, "http-stream": {"content": "end"}}))
pushed("an id twice", *[lambda key, t=t: tnetstring.dumps({"channel": key, "id": "1", "formats": {"http-stream": {"content": t}}})
                        for t in ("one\n", "again\n")], END)
pushed("messages that are none", b"J{", b"J[]", b"T2:ab,", b"0:}", b"hello", b'J{"channel":"KEYKEY"}', END)
pushed("many items", *[tn(**{"http-stream": {"content": f"{number}\n"}}) for number in range(50)], END)


@scenario("SUB: a publisher sees who listens")
async def play(w):  # noqa: F811
    # The socket of both programs is bound, and tells a publisher of its subscriptions.
    socket = w.socket(zmq.XPUB, f"tcp://127.0.0.1:{w.program.sub}")
    w.reply(hold("stream", w.channel()))
    client = await w.stream()
    await w.held("stream")

    async def wanted(sign):
        try:
            async with asyncio.timeout(WAIT):
                while (message := await socket.recv()) != sign + w.key.encode():
                    pass
                w.note("publisher", f"saw {message!r}".replace(w.key, "KEYKEY"))
        except asyncio.TimeoutError:
            w.note("publisher", f"did not see {sign!r}")

    await wanted(b"\x01")
    item = tnetstring.dumps({"channel": "another", "formats": {"http-stream": {"content": "end"}}})
    await socket.send_multipart([w.key.encode() + b"0", item])
    await socket.send_multipart([w.key.encode(), item])
    await client.until("end")
    client.show()
    client.close()
    await wanted(b"\x00")


def commands(name, *requests, kind=zmq.REQ):
    async def play(w):
        for request in requests:
            await w.command(request, kind)

    scenario(f"commands: {name}")(play)


commands("the addresses", {"id": "1", "method": "get-zmq-uris"})
commands("without an id", {"method": "get-zmq-uris"})
commands("of a dealer", {"id": "1", "method": "recover"}, kind=zmq.DEALER)
commands("recover", {"id": "1", "method": "recover"})
commands("an unknown method", {"id": "1", "method": "whatever"})
commands("publish without items", {"id": "1", "method": "publish"})
commands("publish without arguments", {"id": "1", "method": "publish", "args": {}})
commands("publish a bad item", {"id": "1", "method": "publish", "args": {"items": [{"channel": "a"}]}})
commands("check no connections", {"id": "1", "method": "conncheck", "args": {"ids": []}})
commands("check an unknown connection", {"id": "1", "method": "conncheck", "args": {"ids": ["nobody"]}})
commands("check without arguments", {"id": "1", "method": "conncheck"})
commands("refresh nothing", {"id": "1", "method": "refresh"})
commands("refresh an unknown connection", {"id": "1", "method": "refresh", "args": {"cid": "nobody"}})
commands("refresh a channel that nobody has", {"id": "1", "method": "refresh", "args": {"channel": "nobody"}})
commands("a method of another type", {"id": "1", "method": 1})
commands("what is no tnetstring", b"hello")


@scenario("commands: publish")
async def play(w):  # noqa: F811
    w.reply(hold("stream", w.channel()))
    client = await w.stream()
    await w.held("stream")
    item = {"channel": w.channel(), "formats": {"http-stream": {"content": "end"}}}
    await w.command({"id": "1", "method": "publish", "args": {"items": [item]}})
    await client.until("end")
    client.show()


@scenario("commands: refresh a channel", "{target},over_http", counted=True)
async def play(w):  # noqa: F811
    kind = [("Content-Type", "application/websocket-events")]
    subscribe = "c:" + json.dumps({"type": "subscribe", "channel": w.channel()})
    w.reply(Reply(body=events("OPEN", ("TEXT", subscribe)), headers=[*kind, ("Sec-WebSocket-Extensions", "grip")]),
            Reply(body=events(("TEXT", "m:refreshed")), headers=kind))
    socket = await w.websocket()
    await w.held("ws")
    await w.command({"id": "1", "method": "refresh", "args": {"channel": w.channel()}})
    await socket.receive()


@scenario("commands: a connection is found and refreshed", "{target},over_http", counted=True)
async def play(w):  # noqa: F811
    kind = [("Content-Type", "application/websocket-events")]
    w.reply(Reply(body=events("OPEN"), headers=kind), Reply(body=events(("TEXT", "refreshed")), headers=kind))
    socket = await w.websocket()
    connection = await w.told("conn", type="ws")
    await w.command({"id": "1", "method": "conncheck", "args": {"ids": [connection["id"], "nobody"]}})
    await w.command({"id": "1", "method": "refresh", "args": {"cid": connection["id"]}})
    await socket.receive()


async def stream_and_poll(w):
    w.on("/s", hold("stream", w.channel()))
    w.on("/r", hold("response", w.channel()))
    stream = await w.stream("GET /s", name="stream")
    poll = await w.send("GET /r", name="poll")
    await w.held("stream")
    await w.held("response")
    return stream, poll


for config in ("stock", "other"):
    @scenario(f"statistics: of holds, {config}", config=config)
    async def play(w):  # noqa: F811
        stream, poll = await stream_and_poll(w)
        await w.publish(text("end"), id="7")
        await poll.response()
        await stream.until("end")
        await w.told("message", transport="http-stream")
        await w.told("message", transport="http-response")
        connection = await w.told("conn", type="http")
        stream.close()
        await w.told("sub", mode="stream", unavailable=True)
        await w.ended(connection)


@scenario("statistics: items that nobody gets are not told")
async def play(w):  # noqa: F811
    await w.publish(text("x"))
    await asyncio.sleep(0.5)


@scenario("statistics: activity")
async def play(w):  # noqa: F811
    await w.fetch()
    await w.told("activity")


def sums(w, fields):
    """What all reports of the route say together."""
    reports = [value for kind, value in w.stats.told if kind == "report"]
    if w.scenario.config != "alone":
        reports = [report for report in reports if report.get("route") == w.key]
    return {field: sum(report.get(field, 0) for report in reports) for field in fields}


async def reported(w, fields, enough):
    """Notes sums of reports when they have grown enough, or after a while."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 6
    while any(sums(w, fields)[field] < least for field, least in enough.items()) and loop.time() < end:
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.2)
    w.note("reports", json.dumps(sums(w, fields)))


MESSAGES = ["received", "sent", "http-response-sent", "blocks-received", "blocks-sent"]
@scenario("statistics: reports of messages and blocks", config="alone")
async def play(w):  # noqa: F811
    stream, poll = await stream_and_poll(w)
    second = await w.stream("GET /s", name="second")
    await w.held("stream", count=2)
    # A poll of 3 blocks and two streams of 1; then streams of 10 by their own word; then one that nobody gets.
    await w.publish({"http-stream": {"content": "x"}, "http-response": {"body": "x" * 250}})
    await poll.response()
    await stream.until("x")
    await w.publish({"http-stream": {"content": "end"}}, size=1000)
    for client in (stream, second):
        await client.until("end")
        client.show()
    await w.publish({"http-stream": {"content": "y" * 150}, "ws-message": {"content": "y" * 350}}, channel="nobody")
    await reported(w, MESSAGES, {"sent": 5, "received": 3})


@scenario("rate: more than may wait is dropped, the rest comes in order", config="paced")
async def play(w):  # noqa: F811
    w.reply(hold("stream", w.channel(), body=""))
    client = await w.stream()
    await w.held("stream")
    items = [{"channel": w.channel(), "http-stream": {"content": f"{number:03}"}} for number in range(60)]
    await w.publish_items(items)
    await asyncio.sleep(1)
    await w.publish({"http-stream": {"content": "end"}})
    await client.until("end")
    got = client._stream.decode().removesuffix("end")
    numbers = [int(got[at:at + 3]) for at in range(0, len(got), 3)]
    w.note("client", f"some dropped: {10 <= len(numbers) < 60}, the first came: {numbers[:1] == [0]}, "
                     f"in order: {numbers == sorted(set(numbers))}")


@scenario("rate: deliveries are spread over time", config="paced")
async def play(w):  # noqa: F811
    w.reply(hold("stream", w.channel(), body=""))
    clients = [await w.stream(name=f"client{number}") for number in range(3)]
    await w.held("stream", count=3)
    began = asyncio.get_running_loop().time()
    items = [{"channel": w.channel(), "http-stream": {"content": str(number)}} for number in range(3)]
    await w.publish_items(items)
    for client in clients:
        await client.until("2")
        client.show()
    # Nine deliveries, one at once and eight more.
    w.note("publisher", f"took its time: {0.15 < asyncio.get_running_loop().time() - began < 3}")


SIDES = [f"{side}-{what}-{way}" for side in ("client", "server") for what in ("header-bytes", "content-bytes")
         for way in ("received", "sent")]


@scenario("statistics: reports of bytes")
async def play(w):  # noqa: F811
    w.reply(Reply(body="0123456789", headers=[("X-A", "b")]))
    await w.fetch("POST /path?query", ["X-B: c"], "hello")
    await reported(w, ["client-content-bytes-received", "client-content-bytes-sent", "client-header-bytes-received",
                       "client-header-bytes-sent", "server-content-bytes-sent", "server-content-bytes-received"],
                   {"client-content-bytes-sent": 10})


@scenario("statistics: reports of WebSocket messages", "{target},over_http")
async def play(w):  # noqa: F811
    kind = [("Content-Type", "application/websocket-events")]
    w.reply(Reply(body=events("OPEN"), headers=kind), Reply(body=events(("TEXT", "1"), ("TEXT", "2")), headers=kind))
    socket = await w.websocket()
    await socket.message("TEXT", "hello")
    await socket.receive()
    await socket.receive()
    await reported(w, ["client-messages-received", "client-messages-sent", "server-messages-received",
                       "server-messages-sent"], {"client-messages-sent": 2})


@scenario("statistics: the fields of a report")
async def play(w):  # noqa: F811
    await w.fetch()
    hit = await w.stats.wait(lambda kind, value: kind == "report" and value.get("route") == w.key and
                             "client-header-bytes-received" in value)
    w.note("report", " ".join(sorted(hit[1])) if hit else "none")


@scenario("statistics: the fields of counts")
async def play(w):  # noqa: F811
    await w.fetch()
    hit = await w.stats.wait(lambda kind, value: kind == "counts")
    w.note("counts", " ".join(sorted(hit[1])) if hit else "none")
