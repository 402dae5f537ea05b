"""The grammar of the routes file, its conditions and options, and the test handler."""

from peers import Reply
from world import hold, scenario, text


def asks(name, lines, *requests, config="stock"):
    """What comes of requests: line, headers and perhaps a host."""

    async def play(w):
        for request in requests:
            line, headers, host = (*request, (), None)[:3] if isinstance(request, tuple) else (request, (), None)
            await w.fetch(line, [f"X-Key: {w.key}", *headers], host=host and host.format(key=w.key))

    lines = lines if isinstance(lines, list) else [f"{{host}},id={{key}}{lines}"]
    scenario(name, config=config, lines=lines)(play)


asks("a path that begins so, and one that does not", ",path_beg=/p {target}", "GET /p", "GET /px/y?z", "GET /q", "GET /")
asks(
    "the longest path counts, whatever the order",
    ["{host},path_beg=/a {target},host=short", "{host},path_beg=/a/b {target},host=long", "{host} {target},host=none"],
    "GET /a/b/c", "GET /a/c", "GET /z",
)
asks("a protocol", ["{host},proto=ws {refused}", "{host},proto=http {target}"], "GET /")
asks("only WebSockets", ",proto=ws {target}", "GET /")
asks("only TLS", ",ssl=yes {target}", "GET /", ("GET /", ["X-Forwarded-Proto: https"]))
asks("only TLS, told by a header", ",ssl=yes {target}", "GET /", ("GET /", ["X-Forwarded-Proto: https"]), config="other")
asks("only without TLS, told by a header", ",ssl=no {target}", "GET /", ("GET /", ["X-Forwarded-Proto: https"]), config="other")
asks("another host for the backend", ",as_host=other.example {target}", "GET /x?y")
asks("another host with a port", ",as_host=other.example:81 {target}", "GET /")
asks("a host of the target", " {target},host=t.example", "GET /")
asks("both hosts", ",as_host=a.example {target},host=t.example", "GET /")
asks("a path that is cut", ",path_beg=/cut,path_rem=4 {target}", "GET /cut/rest", "GET /cut?a=b")
asks("a path that is cut to nothing", ",path_beg=/cut,path_rem=4 {target}", "GET /cut")
asks("a path that is cut beyond its end", ",path_rem=40 {target}", "GET /cut/x?y")
asks("a path that is replaced", ",path_beg=/old,replace_beg=/new/er {target}", "GET /old/rest?a=b", "GET /old")
asks("a header that is set", ",header=X-Set:value,header=x-two:2 {target}", ("GET /", ["X-Set: of the client"]))
asks("a header that is removed", ",header=X-Gone: {target}", ("GET /", ["X-Gone: a", "x-gone: b"]))
asks("a header in quotes", ',"header=X-Quoted:a, b # c" {target}', "GET /")
asks("quotes and escapes", ',"header=X-Q:say \\"x\\" \\\\ y" {target}', "GET /")
asks("a comment behind a target", " {target} # here", "GET /")
asks("many spaces", "   {target}   ", "GET /")
asks("another signature", ",sig_iss=else,sig_key=other {target}", "GET /")
asks("another key", ",sig_key=other {target}", "GET /")
asks("another issuer", ",sig_iss=else {target}", "GET /")
asks("no GRIP", ",no_grip {target}", ("GET /", ["Grip-Foo: a"]))
asks("a parameter that is unknown", ",whatever=1 {target}", "GET /")
asks("a target parameter that is unknown", " {target},whatever=1", "GET /")
asks("a route by its number", ["{host},id={key} {target}", ",id={key}-by {target},host=by.id"],
     ("GET /", ["Pushpin-Route: {key}-by"]), config="other")
asks("the same condition twice", ["{host} {target},host=first", "{host} {target},host=second"], "GET /")
asks("original headers", ",orig_headers {target}", ("GET /", ["X-A: b", "Cookie: c=d", "eb9bf0f5-X-Old: e", "X-Marked: f"]),
     config="other")
asks("original headers that nobody asked for", " {target}", ("GET /", ["X-A: b", "eb9bf0f5-X-Old: e"]), config="other")

MISTAKES = {
    "without a target": "{host},path_beg=/x",
    "with an open quote": '{host},path_beg=/x,"header=a {target}',
    "with a bad port": "{host},path_beg=/x 127.0.0.1:port",
    "with a bad target": "{host},path_beg=/x localhost",
    "with an empty path": "{host},path_beg= {refused}",
    "with a bad protocol": "{host},path_beg=/x,proto=ftp {refused}",
    "with a bad escape": '{host},path_beg=/x,"header=X:\\n" {refused}',
    "with an empty name": "{host},path_beg=/x,=y {refused}",
    "with a bad header": "{host},path_beg=/x,header=X {refused}",
    "that is a comment": "# {host},path_beg=/x {refused}",
    "of nothing": "",
}
for name, line in MISTAKES.items():
    asks(f"a line {name} is passed over", ["{host} {target}", line], "GET /x", "GET /")

FORWARDED = ["X-Forwarded-For: 1.1.1.1, 2.2.2.2", "X-Forwarded-For: 3.3.3.3", "X-Forwarded-Proto: https"]
asks("forwarded headers by rule", " {target}", ("GET /", FORWARDED), config="other")
asks("forwarded headers by rule where there are none", " {target}", "GET /", config="other")
asks("the older name of the protocol header", " {target}", ("GET /", ["X-Forwarded-Protocol: https"]), config="other")
asks("a protocol header of something else", " {target}", ("GET /", ["X-Forwarded-Proto: gopher"]), config="other")

asks("the test handler", " test", "GET /", "GET /none", "HEAD /none", "POST /", "GET /?a=b")
asks("the test handler below a path", ",path_beg=/t test", "GET /t", "GET /t/", "GET /tx")
asks("the test handler and a large body", " test", ("POST /", ["X: 1"]))


@scenario("holds of the test handler", "test")
async def play(w):
    stream = await w.stream(f"GET /stream?channel={w.channel()}&channel={w.channel('2')}")
    await stream.until("opened")
    poll = await w.send(f"GET /response?channel={w.channel()}", name="poll")
    await w.held("stream")
    await w.held("stream", w.channel("2"))
    await w.held("response")
    await w.publish(text("one\n"))
    await w.publish(text("two\n"), w.channel("2"))
    await poll.response()
    await stream.until("two")
    stream.show()


@scenario("a WebSocket of the test handler", "test")
async def play(w):  # noqa: F811
    socket = await w.websocket(f"/ws?channel={w.channel()}")
    await socket.message("TEXT", "echo")
    await socket.receive()
    await w.held("ws")
    await w.publish(text("published"))
    await socket.receive()
    await socket.message("CLOSE", b"\x03\xe8bye")
    await socket.receive()
    await socket.closed()


@scenario("a WebSocket that the test handler does not know", "test")
async def play(w):  # noqa: F811
    await w.websocket("/nothing")


@scenario("a channel of the target", "{target},sub={key}sub")
async def play(w):  # noqa: F811
    w.reply(hold("stream"))
    stream = await w.stream()
    await stream.until("nothing")
    await w.held("stream", w.channel("sub"))
    await w.publish(text("one\n"), w.channel("sub"))
    await stream.until("one")
    stream.show()


@scenario("a prefix of channels", ",prefix={key}- {target}")
async def play(w):  # noqa: F811
    w.reply(hold("stream", "a"))
    stream = await w.stream()
    await stream.until("nothing")
    await w.held("stream", w.channel("-a"))
    await w.publish(text("without\n"), "a")
    await w.publish(text("with\n"), w.channel("-a"))
    await stream.until("with\n")
    stream.show()


@scenario("a route that reads no instructs", ",no_grip {target}")
async def play(w):  # noqa: F811
    w.reply(hold("response", w.channel(), headers=[("Grip-Foo", "a")]))
    await w.fetch()


@scenario("a route whose errors are explained", ",debug {target}")
async def play(w):  # noqa: F811
    w.reply(hold("nonsense", w.channel()), Reply(raw="x"))
    await w.fetch()
    await w.fetch(name="again")
