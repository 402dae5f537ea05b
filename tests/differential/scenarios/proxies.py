"""GRIP proxies behind each other: who is trusted with what."""

from peers import Reply, events
from world import hold, scenario, token


def trusted(w, secret="upstream", **more):
    return [f"Grip-Sig: {token(secret, **more)}", "Grip-Feature: status", "Grip-Foo: a", "grip-last: c; last-id=1"]


@scenario("the headers of a trusted proxy pass", config="other")
async def play(w):
    w.reply(hold("stream", w.channel()))
    await w.fetch("GET /", trusted(w))


@scenario("the headers of a proxy with another key do not", config="other")
async def play(w):  # noqa: F811
    w.reply(Reply(body="x"))
    await w.fetch("GET /", trusted(w, "changeme"))


@scenario("an expired signature is none", config="other")
async def play(w):  # noqa: F811
    await w.fetch("GET /", trusted(w, valid=-10))


@scenario("nobody is trusted without a key")
async def play(w):  # noqa: F811
    await w.fetch("GET /", trusted(w))


@scenario("a trusted proxy may send events", "{target},over_http", "other")
async def play(w):  # noqa: F811
    w.reply(Reply(body=events("OPEN"), headers=[("Content-Type", "application/websocket-events")]))
    await w.fetch("POST /", [*trusted(w), "Content-Type: application/websocket-events"], "OPEN\r\n")


@scenario("a trusted proxy and forwarded addresses", config="other")
async def play(w):  # noqa: F811
    await w.fetch("GET /", [*trusted(w), "X-Forwarded-For: 1.1.1.1, 2.2.2.2"])


@scenario("a trusted proxy and original headers", ",orig_headers {target}", "other")
async def play(w):  # noqa: F811
    await w.fetch("GET /", [*trusted(w), "X-A: b", "eb9bf0f5-X-A: c"])


@scenario("a trusted proxy on a route without GRIP", ",no_grip {target}", "other")
async def play(w):  # noqa: F811
    w.reply(hold("response", w.channel()))
    await w.fetch("GET /", trusted(w))
