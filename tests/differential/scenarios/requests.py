"""How requests and responses pass: heads, bodies, connections, and what is refused."""

import asyncio

from peers import Reply
from world import hold, scenario


def passes(name, line="GET /", headers=(), body="", reply=None, route="{target}", config="stock", **more):
    """A request of its own connection, and one answer."""

    async def play(w):
        if reply:
            w.reply(reply)
        await w.fetch(line, headers, body, **more)

    scenario(name, route, config)(play)


passes("a plain request")
passes("a path with escapes and a query", "GET /a%20b/c%2F?d=e&f=%2F&g")
passes("a query of question marks", "GET /?a?b=?c")
passes("a path of signs", "GET /;a=b,c/~x/(1)!$'*+")
for method in ["DELETE", "OPTIONS", "PATCH", "PROPFIND", "X-MINE", "PUT"]:
    passes(f"the method {method}", f"{method} /m", body="" if method in ("DELETE", "OPTIONS") else "x")
passes("a HEAD request", "HEAD /", reply=Reply(body="seven!!"))
passes("a POST with a body", "POST /p", ["Content-Type: text/plain", "X-Mine: a", "X-Mine: b"], "some body")
passes("a POST without a body", "POST /p")
passes("a body of 300,000 bytes", "POST /big", body="0123456789" * 30_000)
passes("hop-by-hop headers of a request", headers=["Keep-Alive: timeout=5", "TE: trailers", "Proxy-X: 1", "Via: 1.1 me"])
passes("headers of compression in a request", headers=["Accept-Encoding: gzip", "Content-Encoding: identity"])
passes("headers that look like those of GRIP", headers=["Grip-Sig: a", "Grip-Foo: b", "grip-last: c", "GripX: d"])
passes("headers of a WebSocket that is none", headers=["Sec-WebSocket-Key: a", "Sec-WebSocket-Extensions: b"])
passes("cookies and authorization", headers=["Cookie: a=b; c=d", "Authorization: Basic eDp5", "Referer: http://r/"])
passes("a header without a value", headers=["X-Empty:", "X-Full:  padded  "])
passes("a header of other characters", headers=["X-Bytes: \xe4\xf6"])
passes("a long header", headers=["X-Long: " + "v" * 3000])
passes("forwarded headers that nobody asked for", headers=["X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https"])
passes("a Pushpin-Route that is not accepted", headers=["Pushpin-Route: other"])
passes("an Expect header", "POST /e", ["Expect: 100-continue"], "x")
passes("an unknown expectation", "POST /e", ["Expect: something"], "x")

REPLIES = {
    "a status of its own": Reply("418 Short And Stout", "tea", [("X-One", "1"), ("Set-Cookie", "a"), ("Set-Cookie", "b")]),
    "a status without a reason": Reply(raw="HTTP/1.1 299 \r\nContent-Length: 2\r\n\r\nok"),
    "204": Reply("204 No Content"),
    "304": Reply("304 Not Modified", headers=[("ETag", '"x"')]),
    "a redirect": Reply("302 Found", "", [("Location", "http://elsewhere/")]),
    "a chunked body": Reply(body="in two parts", chunked=True),
    "an empty chunked body": Reply(body="", chunked=True),
    "a body until the end": Reply(raw="HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end"),
    "a body of HTTP/1.0": Reply(raw="HTTP/1.0 200 OK\r\nX-A: b\r\n\r\nold"),
    "300,000 bytes": Reply(body="0123456789" * 30_000),
    "hop-by-hop headers": Reply(body="x", headers=[("Keep-Alive", "timeout=5"), ("X-Kept", "1"), ("Connection", "X-Kept")]),
    "a date and a server": Reply(body="x", headers=[("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Server", "mine")]),
    "an interim response first": Reply(raw="HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    "500": Reply("500 Internal Server Error", "broken\n"),
}
for name, reply in REPLIES.items():
    passes(f"a response with {name}", reply=reply)
passes("a response to HEAD without a length", "HEAD /", reply=Reply(raw="HTTP/1.1 200 OK\r\nX-A: b\r\n\r\n"))

BROKEN = {
    "an end without an answer": "",
    "what is not HTTP": "hello\r\n\r\n",
    "a cut chunked body": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "a bad length": "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello",
    "a bad chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello",
}
for name, raw in BROKEN.items():
    passes(f"a backend that sends {name}", reply=Reply(raw=raw))


async def nobody(w):
    await w.fetch("GET /x")


scenario("a backend that refuses connections", "{refused}")(nobody)
scenario("a backend that refuses, with debug texts", "{refused}", "other")(nobody)
scenario("a second target when the first refuses", "{refused} {target}")(nobody)
scenario("a third target when two refuse", "{refused} 127.0.0.1:2 {target}")(nobody)
scenario("two targets that refuse, with debug texts", "{refused} 127.0.0.1:2", "other")(nobody)


@scenario("a second target is not asked when the first answers with an error", "{target} {refused}")
async def play(w):
    w.reply(Reply("503 Service Unavailable", "later\n"))
    await w.fetch("GET /")


@scenario("an unknown host")
async def play(w):  # noqa: F811
    await w.fetch("GET /", host="unknown.test")


@scenario("an unknown host, by POST")
async def play(w):  # noqa: F811
    await w.fetch("POST /", body="x", host="unknown.test")


@scenario("a connection serves one request after the other")
async def play(w):  # noqa: F811
    client = await w.client()
    for path in ["/1", "/2", "/3"]:
        await client.send(w.request(f"GET {path}"))
        await client.response()


@scenario("pipelined requests are answered in order")
async def play(w):  # noqa: F811
    client = await w.client()
    await client.send(w.request("GET /1") + w.request("POST /2", body="x") + w.request("GET /3"))
    for _ in range(3):
        await client.response()


@scenario("a client that asks to close")
async def play(w):  # noqa: F811
    client = await w.send("GET /", ["Connection: close"])
    await client.response()
    await client.closed()


@scenario("a client of HTTP/1.0")
async def play(w):  # noqa: F811
    client = await w.send("GET /", version="1.0")
    await client.response()
    await client.closed()


@scenario("a client of HTTP/1.0 that stays")
async def play(w):  # noqa: F811
    client = await w.client()
    for path in ["/1", "/2"]:
        await client.send(w.request(f"GET {path}", ["Connection: keep-alive"], version="1.0"))
        await client.response()


@scenario("a client of HTTP/1.0 and a chunked response")
async def play(w):  # noqa: F811
    w.reply(Reply(body="in two parts", chunked=True))
    client = await w.send("GET /", version="1.0")
    await client.response()
    await client.closed()


@scenario("a chunked upload")
async def play(w):  # noqa: F811
    client = await w.client()
    head = f"POST / HTTP/1.1\r\nHost: {w.host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    await client.send(head + "3\r\none\r\n4;ext=1\r\n two\r\n0\r\nX-Trailer: t\r\n\r\n")
    await client.response()


@scenario("an upload in two parts")
async def play(w):  # noqa: F811
    client = await w.client()
    await client.send(f"POST / HTTP/1.1\r\nHost: {w.host}\r\nContent-Length: 6\r\n\r\none")
    await asyncio.sleep(0.1)
    await client.send("two")
    await client.response()


@scenario("a chunked response that comes bit by bit")
async def play(w):  # noqa: F811
    async def slowly(_request, _reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await asyncio.sleep(0.2)
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    w.reply(slowly)
    client = await w.stream("GET /")
    await client.until("first", 0.15)
    await client.until(None)
    client.show()


def refuses(name, text):
    """Bytes that no server should take, and whether the connection ends."""

    async def play(w):
        client = await w.client()
        await client.send(text.replace("HOST", w.host))
        await client.response()
        await client.closed()

    scenario(f"refused: {name}")(play)


MALFORMED = {
    "a bad request line": "GET\r\nHost: HOST\r\n\r\n",
    "a bad version": "GET / HTTP/3.7\r\nHost: HOST\r\n\r\n",
    "a header without a colon": "GET / HTTP/1.1\r\nHost: HOST\r\nnonsense\r\n\r\n",
    "a space before the colon": "GET / HTTP/1.1\r\nHost: HOST\r\nX-A : b\r\n\r\n",
    "a bad length": "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: x\r\n\r\n",
    "a negative length": "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: -1\r\n\r\n",
    "a bad chunk size": "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an unknown transfer encoding": "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: gzip\r\n\r\n",
    "two lengths": "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length beside chunks": "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a null byte": "GET / HTTP/1.1\r\nHost: HOST\r\nX-A: b\0c\r\n\r\n",
    "a header longer than the buffer": "GET / HTTP/1.1\r\nHost: HOST\r\nX-A: " + "v" * 9000 + "\r\n\r\n",
    "more headers than any client has": "GET / HTTP/1.1\r\nHost: HOST\r\n" + "X-A: b\r\n" * 200 + "\r\n",
    "no host": "GET / HTTP/1.1\r\nX-Key: HOST\r\n\r\n",
    "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "the method CONNECT": "CONNECT HOST:443 HTTP/1.1\r\nHost: HOST:443\r\n\r\n",
}
for name, text in MALFORMED.items():
    refuses(name, text)


@scenario("bare line feeds and blank lines before a request")
async def play(w):  # noqa: F811
    client = await w.client()
    await client.send(f"\r\nGET /lf HTTP/1.1\nHost: {w.host}\n\n")
    await client.response()


@scenario("a request for an absolute address")
async def play(w):  # noqa: F811
    await w.fetch(f"GET http://{w.host}/abs")


@scenario("a client that leaves before the answer")
async def play(w):  # noqa: F811
    async def late(_request, _reader, _writer):
        await asyncio.sleep(0.3)
        return Reply(body="late")

    w.reply(late)
    client = await w.send("GET /late")
    await w.asked(1)
    client.close()
    await w.fetch("GET /next", name="another")


@scenario("a check for the product")
async def play(w):  # noqa: F811
    client = await w.send("GET /", ["Pushpin-Check: 1"])
    await client.response()


@scenario("an upload above 100 kB that is answered with an instruct")
async def play(w):  # noqa: F811
    w.reply(hold("stream", w.channel()))
    await w.fetch("POST /", body="x" * 110_000)


@scenario("a host with a port and capitals")
async def play(w):  # noqa: F811
    await w.fetch("GET /", ["X-Key: " + w.key], host=f"{w.key.upper()}.TEST:8080")
