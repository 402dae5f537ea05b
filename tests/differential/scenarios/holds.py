"""Instructs, long-polls, streams and their keep-alives."""

import asyncio
import json

from peers import Reply
from world import hold, instruct, scenario, text


def answers(name, reply, *items, route="{target}", config="stock", mode="response", line="GET /"):
    """A hold, the items that come, and what the client gets. Replies and items may name the channel by KEYKEY."""

    async def play(w):
        w.reply(fill(reply, w))
        stream = mode == "stream"
        client = await w.stream(line) if stream else await w.send(line)
        if items:
            await w.held(mode)
        for item in items:
            await w.publish_items([{"channel": w.channel(), **item}])
        if not stream:
            await client.response()
            return
        await client.until("last" if items else "nothing")
        client.show()

    scenario(name, route, config)(play)


def fill(reply, w):
    headers = [(name, value.replace("KEYKEY", w.key)) for name, value in reply.headers]
    return Reply(reply.status, reply.body.replace(b"KEYKEY", w.key.encode()), headers, reply.raw, reply.chunked)


def response(**fields):
    return {"formats": {"http-response": fields}}


def stream(content, **fields):
    return {"formats": {"http-stream": {"content": content, **fields}}}


POLL = hold("response", "KEYKEY", headers=[("X-A", "inherited"), ("X-B", "inherited")])
answers("an item answers a poll", POLL, response(body="pushed\n"))
answers("an item with a code", POLL, response(code=201, body="x"))
answers("an item with a code and a reason", POLL, response(code=299, reason="Mine", body="x"))
answers("an item with an unknown code", POLL, response(code=299, body="x"))
answers("headers of an item replace those of the hold", POLL, response(headers={"x-a": "new", "X-C": "more"}, body="x"))
answers("headers of an item as a list", POLL, response(headers=[["X-C", "1"], ["X-C", "2"]], body="x"))
answers("headers of an item that name a length", POLL, response(headers={"Content-Length": "77"}, body="x"))
answers("headers of an item with Grip", POLL, response(headers={"Grip-Foo": "a"}, body="x"))
answers("an item that takes headers away", POLL, response(headers={"Grip-Expose-Headers": "X-A"}, body="x"))
answers("an item in base64", POLL, response(**{"body-bin": "AAEC/w=="}))
answers("an item with an empty body", POLL, response(body=""))
answers("an item with two bodies", POLL, response(**{"body": "plain", "body-bin": "YmFzZTY0"}))
answers("an item that is published in the old form", POLL, {"http-response": {"body": "old"}})
answers("an item for others first", POLL, stream("not for me"), response(body="for me"))
answers("an item of 90,000 bytes", POLL, response(body="0123456789" * 9_000))

PATCHED = hold("response", "KEYKEY", body='{"a":1,"list":["x"],"deep":{"b":null}}\n', headers=[("Content-Type", "application/json")])


def patch(*operations):
    return response(**{"body-patch": list(operations)})


answers("a patch that adds", PATCHED, patch({"op": "add", "path": "/c", "value": {"d": [1, "two"]}}))
answers("a patch that replaces", PATCHED, patch({"op": "replace", "path": "/a", "value": 2}))
answers("a patch that removes", PATCHED, patch({"op": "remove", "path": "/deep/b"}))
answers("a patch that appends", PATCHED, patch({"op": "add", "path": "/list/-", "value": "y"}))
answers("a patch that inserts", PATCHED, patch({"op": "add", "path": "/list/0", "value": "w"}))
answers("a patch that moves and copies", PATCHED,
        patch({"op": "move", "from": "/a", "path": "/m"}, {"op": "copy", "from": "/list", "path": "/l"}))
answers("a patch whose test holds", PATCHED,
        patch({"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "/a", "value": 3}))
answers("a patch whose test fails", PATCHED,
        patch({"op": "test", "path": "/a", "value": 2}, {"op": "replace", "path": "/a", "value": 3}))
answers("a patch of what is no JSON", POLL, patch({"op": "add", "path": "/c", "value": 1}))
answers("a patch of a path that is not there", PATCHED, patch({"op": "remove", "path": "/none"}))

answers("a status of the hold", hold("response", "KEYKEY", headers=[("Grip-Status", "404")]), response(body="x"))
EXPOSE = hold("response", "KEYKEY", headers=[("X-A", "1"), ("X-B", "2"), ("Grip-Expose-Headers", "x-a")])
answers("headers that are exposed", EXPOSE, response(headers={"X-C": "3"}, body="x"))

STREAM = hold("stream", "KEYKEY", headers=[("X-A", "b")])
answers("items follow on a stream", STREAM, stream("one\n"), stream("two\n"), stream("last\n"), mode="stream")
answers("a stream with a status", hold("stream", "KEYKEY", status="201 Created", headers=[("Grip-Status", "202 Mine")]),
        stream("last"), mode="stream")
answers("items in base64 on a stream", STREAM, {"formats": {"http-stream": {"content-bin": "bGFzdA=="}}}, mode="stream")
answers("an item for others on a stream", STREAM, response(body="no"), stream("last"), mode="stream")
answers("a stream that is empty at first", hold("stream", "KEYKEY", body=""), stream("last"), mode="stream")
answers("a stream of 90,000 bytes at first", hold("stream", "KEYKEY", body="nothing" * 13_000), stream("last"), mode="stream")
answers("a stream of 300,000 bytes at first", hold("stream", "KEYKEY", body="nothing " * 40_000), stream("last"), mode="stream")
answers("a chunked instruct", hold("stream", "KEYKEY", chunked=True), stream("last"), mode="stream")
answers("an item of 200,000 bytes on a stream", STREAM, stream("0123456789" * 20_000 + "last"), mode="stream")
answers("a POST that becomes a stream", STREAM, stream("last"), mode="stream", line="POST /")
answers("a HEAD that is answered with a stream", STREAM, line="HEAD /")


@scenario("a stream that an item ends")
async def play(w):
    w.reply(hold("stream", w.channel()))
    client = await w.stream()
    await w.held("stream")
    await w.publish({"http-stream": {"content": "one\n"}})
    await w.publish({"http-stream": {"action": "close"}})
    await client.until(None)
    client.show()
    await client.send(w.request("GET /again"))
    w.reply(Reply(body="the same connection\n"))
    await client.response()


@scenario("an action that a response ignores")
async def play(w):  # noqa: F811
    w.reply(hold("response", w.channel()))
    client = await w.send()
    await w.held("response")
    for action in ["close", "refresh"]:
        await w.publish({"http-response": {"action": action}})
    await w.publish({"http-response": {"action": "send", "body": "sent"}})
    await client.response()


@scenario("a hint asks again", counted=True)
async def play(w):  # noqa: F811
    w.reply(hold("response", w.channel()), Reply(body="asked again\n", headers=[("X-New", "1")]))
    client = await w.send("POST /p?q", ["X-Mine: a"], "with a body")
    await w.held("response")
    await w.publish({"http-response": {"action": "hint"}})
    await client.response()


@scenario("a poll is asked again a second after a first subscription", counted=True)
async def play(w):  # noqa: F811
    w.reply(hold("response", w.channel()), Reply(body="asked again\n"))
    client = await w.send()
    await client.response()


@scenario("a second poll on the channel is not asked again", counted=True)
async def play(w):  # noqa: F811
    w.reply(hold("stream", w.channel()), hold("response", w.channel()))
    await (await w.stream(name="stream")).until("nothing")
    await w.held("stream")
    await asyncio.sleep(1.3)
    client = await w.send()
    await w.held("response")
    await client.silent(1.4)


@scenario("a stream of HTTP/1.0")
async def play(w):  # noqa: F811
    w.reply(hold("stream", w.channel()))
    client = await w.stream(version="1.0")
    await w.held("stream")
    await w.publish(text("last"))
    await client.until("last")
    client.show()


@scenario("a poll of HTTP/1.0")
async def play(w):  # noqa: F811
    w.reply(hold("response", w.channel()))
    client = await w.send(version="1.0")
    await w.held("response")
    await w.publish(text("answer"))
    await client.response()
    await client.closed()


@scenario("a poll that times out")
async def play(w):  # noqa: F811
    w.reply(hold("response", w.channel(), headers=[("Grip-Timeout", "5"), ("X-A", "b")]))
    stream = await w.stream(name="stream")
    client = await w.send()
    await asyncio.sleep(4)
    await client.response()
    stream.show()


@scenario("a poll that times out after the least time")
async def play(w):  # noqa: F811
    w.reply(hold("response", w.channel(), headers=[("Grip-Timeout", "0")]))
    client = await w.send()
    await client.silent(3)
    await asyncio.sleep(1.5)
    await client.response()


@scenario("a connection polls one time after the other")
async def play(w):  # noqa: F811
    w.reply(hold("response", w.channel()))
    client = await w.client()
    for number in range(3):
        await client.send(w.request("GET /"))
        await w.asked(number + 1)
        await w.held("response")
        await asyncio.sleep(0.15)
        await w.publish({"http-response": {"body": f"{number}\n"}})
        await client.response()


@scenario("two listeners of one channel")
async def play(w):  # noqa: F811
    w.reply(hold("stream", w.channel()))
    one = await w.stream(name="one")
    two = await w.stream(name="two")
    await w.held("stream", count=2)
    await w.publish(text("last"))
    for client in (one, two):
        await client.until("last")
        client.show()


@scenario("a listener of three channels")
async def play(w):  # noqa: F811
    w.reply(hold("stream", w.channel("a"), f"{w.channel('b')}, {w.channel('c')}"))
    client = await w.stream()
    for name in "abc":
        await w.held("stream", w.channel(name))
        await w.publish(text(name), w.channel(name))
    await w.publish(text("last"), w.channel("a"))
    await client.until("last")
    client.show()


@scenario("more channels than are allowed", config="other")
async def play(w):  # noqa: F811
    w.reply(hold("stream", *(w.channel(name) for name in "abc")))
    client = await w.stream()
    await w.held("stream", w.channel("b"))
    for name in "abc":
        await w.publish(text(f"{name}\n"), w.channel(name))
    await w.publish(text("last"), w.channel("a"))
    await client.until("last")
    client.show()


@scenario("a client that leaves is unsubscribed")
async def play(w):  # noqa: F811
    w.reply(hold("stream", w.channel()))
    client = await w.stream()
    await w.held("stream")
    connection = await w.told("conn", type="http")
    client.close()
    await w.told("sub", mode="stream", unavailable=True)
    await w.ended(connection)


JSON = {
    "of a response": {"hold": {"mode": "response", "channels": [{"name": "KEYKEY"}]}, "response": {"body": "nothing"}},
    "with everything": {
        "hold": {"mode": "response", "channels": [{"name": "KEYKEY", "filters": ["skip-self"]}], "timeout": "20",
                 "meta": {"user": "me"}},
        "response": {"code": "203", "reason": "Mine", "headers": [["X-A", "1"], ["X-A", "2"]], "body-bin": "AQI="},
    },
    "without a mode": {"hold": {"channels": [{"name": "KEYKEY"}]}},
}
for name, value in JSON.items():
    answers(f"a JSON instruct {name}", instruct(value), response(body="pushed"))

PLAIN = {
    "without a hold": {"response": {"body": "plain", "headers": {"X-A": "1"}}},
    "with a code": {"response": {"code": 404, "body": "no"}},
    "of nothing": {},
    "with nulls": {"hold": None, "response": {"body": "x", "headers": None}},
}
for name, value in PLAIN.items():
    answers(f"a JSON instruct {name}", instruct(value, [("X-Dropped", "1")]))

answers("headers and JSON add up", instruct({"hold": {"mode": "response", "channels": []}}, [("Grip-Channel", "KEYKEY")]),
        response(body="pushed"))
answers("a JSON instruct with parameters in its type",
        Reply(body='{"response":{"body":"x"}}', headers=[("Content-Type", "application/grip-instruct; charset=utf-8")]))

MISTAKES = {
    "an unknown mode": [("Grip-Hold", "other")],
    "a mode in capitals": [("Grip-Hold", "Response")],
    "a timeout that is no number": [("Grip-Hold", "response"), ("Grip-Timeout", "x")],
    "a negative timeout": [("Grip-Hold", "response"), ("Grip-Timeout", "-1")],
    "six filters": [("Grip-Hold", "stream"), ("Grip-Channel", "a" + ";filter=f" * 6)],
    "an empty keep-alive": [("Grip-Hold", "stream"), ("Grip-Keep-Alive", ";timeout=1")],
    "an unknown format of keep-alives": [("Grip-Hold", "stream"), ("Grip-Keep-Alive", "x; format=z")],
    "a bad cstring": [("Grip-Hold", "stream"), ("Grip-Keep-Alive", "x\\xz1; format=cstring")],
    "a keep-alive timeout that is no number": [("Grip-Hold", "stream"), ("Grip-Keep-Alive", "x; timeout=z")],
    "an unknown mode of keep-alives": [("Grip-Hold", "stream"), ("Grip-Keep-Alive", "x; mode=z")],
    "a bad status": [("Grip-Status", "x")],
    "a status above 999": [("Grip-Status", "1000")],
    "a link without brackets": [("Grip-Link", "/x; rel=next")],
    "a link timeout that is no number": [("Grip-Link", "</x>; rel=next; timeout=z")],
}
for name, headers in MISTAKES.items():
    answers(f"a mistake: {name}", Reply(body="x", headers=headers), config="other")

BAD_JSON = {
    "no JSON": "{",
    "no object": "[]",
    "a hold of the wrong type": {"hold": 1},
    "an unknown mode": {"hold": {"mode": "x", "channels": []}},
    "no channels": {"hold": {"mode": "response"}},
    "a channel without a name": {"hold": {"channels": [{}]}},
    "a filter of the wrong type": {"hold": {"channels": [{"name": "a", "filters": [1]}]}},
    "a timeout of the wrong type": {"hold": {"channels": [], "timeout": {}}},
    "a negative timeout": {"hold": {"channels": [], "timeout": -1}},
    "meta of the wrong type": {"hold": {"channels": [], "meta": {"a": 1}}},
    "a code of the wrong type": {"response": {"code": []}},
    "a code above 999": {"response": {"code": 1000}},
    "headers of the wrong type": {"response": {"headers": 1}},
    "a header pair of one": {"response": {"headers": [["a"]]}},
    "a body of the wrong type": {"response": {"body": 1}},
    "keep-alive content of the wrong type": {"hold": {"mode": "stream", "channels": [], "keep-alive": {"content": 1}}},
}
for name, value in BAD_JSON.items():
    answers(f"a mistake in JSON: {name}", instruct(value), config="other")
answers("a mistake in JSON: a status that is not 200", instruct({}, status="201 Created"), config="other")
answers("a mistake without debug texts", Reply(body="x", headers=[("Grip-Hold", "other")]))
answers("a poll with a body above the limit", hold("response", "KEYKEY", body="x" * 110_000), config="other")
answers("Grip headers without a hold", Reply(body="plain", headers=[("Grip-Status", "202"), ("Grip-Foo", "a"), ("X-A", "b")]))


def keeps_alive(name, value, expected, wait=3.5, body=None):
    async def play(w):
        if body is None:
            w.reply(hold("stream", w.channel(), headers=[("Grip-Keep-Alive", value)]))
        else:
            w.reply(instruct(json.loads(json.dumps(body).replace("KEYKEY", w.key))))
        client = await w.stream()
        await client.until(expected, wait)
        # Only that it came: how often depends on the moment.
        client._stream = client._stream[:client._stream.find(expected.encode()) + len(expected)]
        client.show()

    scenario(f"keep-alives: {name}")(play)


keeps_alive("as they are", "ping; timeout=1", "nothing\nping")
keeps_alive("as a cstring", "a\\r\\nb\\x21\\\\; format=cstring; timeout=1", "nothing\na\r\nb!\\")
keeps_alive("in base64", "cGluZw==; format=base64; timeout=1", "nothing\nping")
keeps_alive("with commas", "a, b; timeout=1", "nothing\na, b")
keeps_alive("with quotes", '"quoted"; timeout=1', 'nothing\n"quoted"')
keeps_alive("at least a second", "ping; timeout=0", "nothing\nping")
keeps_alive("at intervals", "ping; timeout=1; mode=interval", "nothing\nping")
keeps_alive("by JSON", "", "openping", body={
    "hold": {"mode": "stream", "channels": [{"name": "KEYKEY"}], "keep-alive": {"content": "ping", "timeout": 1}},
    "response": {"body": "open"},
})
keeps_alive("by JSON in base64", "", "openping", body={
    "hold": {"mode": "stream", "channels": [{"name": "KEYKEY"}], "keep-alive": {"content-bin": "cGluZw==", "timeout": 1}},
    "response": {"body": "open"},
})
