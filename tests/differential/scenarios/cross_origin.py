"""CORS, JSON-P and SockJS."""

import json

from peers import Reply, events
from world import hold, scenario, text

ORIGIN = "Origin: https://app.example"


def asks(name, line="GET /", headers=(), reply=None, route=",aco {target}", body="", publish=None):
    async def play(w):
        if reply:
            w.reply(Reply(reply.status, reply.body, [(k, v.replace("KEYKEY", w.key)) for k, v in reply.headers]))
        client = await w.send(line, headers, body)
        if publish:
            await w.held("response")
            await w.publish(publish)
        await client.response(line.startswith("HEAD"))

    scenario(name, route)(play)


asks("CORS: an origin", headers=[ORIGIN])
asks("CORS: no origin")
asks("CORS: a preflight", "OPTIONS /", [ORIGIN, "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: x-a, x-b"])
asks("CORS: headers that are exposed", reply=Reply(body="x", headers=[("X-A", "1"), ("Content-Type", "text/plain"), ("ETag", "2")]))
asks("CORS: a backend that speaks for itself", headers=[ORIGIN], reply=Reply(body="x", headers=[
    ("Access-Control-Allow-Origin", "https://mine"), ("Access-Control-Max-Age", "1")]))
asks("CORS: an error", headers=[ORIGIN], route=",aco {refused}")
asks("CORS: a backend's error", headers=[ORIGIN], reply=Reply("404 Not Found", "no"))
asks("CORS: a poll", headers=[ORIGIN], reply=hold("response", "KEYKEY"), publish=text("pushed"))
asks("CORS: a stream that cannot be", headers=[ORIGIN], reply=hold("nonsense", "KEYKEY"))

asks("JSON-P: a callback", "GET /?callback=cb&x=y")
asks("JSON-P: a callback alone", "GET /?callback=cb")
asks("JSON-P: text that needs escapes", "GET /?callback=cb", reply=Reply(body='a"b\\c\nd\u00e4\u2028', headers=[("X-A", "b")]))
asks("JSON-P: a method", "GET /?callback=cb&_method=POST&_body=hello")
asks("JSON-P: headers", "GET /?callback=cb&_headers=%7B%22X-A%22%3A%22b%22%2C%22Host%22%3A%22no%22%7D")
asks("JSON-P: a bad method", "GET /?callback=cb&_method=%00")
asks("JSON-P: bad headers", "GET /?callback=cb&_headers=x")
asks("JSON-P: an empty callback", "GET /?callback=")
asks("JSON-P: a status", "GET /?callback=cb", reply=Reply("404 Not Found", "no\n"))
asks("JSON-P: a cache", "GET /?callback=cb", reply=Reply(body="x", headers=[("Cache-Control", "max-age=5"), ("ETag", "z")]))
asks("JSON-P: an error", "GET /?callback=cb", route=",aco {refused}")
asks("JSON-P: a POST is none", "POST /?callback=cb", body="x")
asks("JSON-P: a poll", "GET /?callback=cb", reply=hold("response", "KEYKEY"), publish=text("pushed\n"))
asks("JSON-P: nothing without the option", "GET /?callback=cb", route="{target}")
asks("JSON-P basic: a callback", "GET /?callback=cb", route=",aco,jsonp_mode=basic {target}")
asks("JSON-P basic: a status", "GET /?callback=cb", reply=Reply("404 Not Found", "no\n"), route=",aco,jsonp_mode=basic {target}")
asks("JSON-P basic: a poll", "GET /?callback=cb", reply=hold("response", "KEYKEY"), publish=text("pushed\n"),
     route=",aco,jsonp_mode=basic {target}")
NAMED = ",aco,jsonp_cb=call,jsonp_body=data,jsonp_defcb=default,jsonp_defmethod=PUT {target}"
asks("JSON-P: other names", "GET /?call=cb&data=%7B%22a%22%3A1%7D&z", route=NAMED)
asks("JSON-P: a default callback", "GET /?data=%7B%7D", route=NAMED)
asks("JSON-P: a body that is no JSON", "GET /?data=%7B", route=NAMED)
asks("JSON-P: neither", "GET /?z", route=NAMED)

SOCKJS = ",sockjs=/s,sockjs_as_path=/ws test"


def sockjs(name, line, headers=(), body="", route=SOCKJS):
    asks(f"SockJS: {name}", line, headers, route=route, body=body)


sockjs("what the endpoint can do", "GET /s/info", [ORIGIN])
sockjs("a preflight", "OPTIONS /s/0/a/xhr", [ORIGIN])
sockjs("the page for frames", "GET /s/iframe.html")
sockjs("the page for frames with a version", "GET /s/iframe-1.0.html?t=1")
sockjs("the root", "GET /s")
sockjs("the root with a slash", "GET /s/")
sockjs("a path that is none", "GET /s/0/x/none")
sockjs("other paths of the route", "GET /other")
for name in ["xhr_streaming", "eventsource", "htmlfile"]:
    sockjs(f"the transport {name}", f"POST /s/0/a/{name}")
sockjs("sending without a session", "POST /s/0/a/xhr_send", body='["x"]')
sockjs("a JSON-P poll without a callback", "GET /s/0/a/jsonp")


async def post(w, path, body="", name="client"):
    await w.fetch(f"POST /s/0/{w.key}/{path}", body=body, name=name)


@scenario("SockJS: polls", SOCKJS)
async def play(w):
    await post(w, "xhr")
    await post(w, "xhr_send", json.dumps(["one", "zw\u00f6lf \"2\""]))
    await post(w, "xhr")
    await post(w, "xhr_send", "nonsense")
    await post(w, "xhr_send", "")
    await post(w, "xhr_send", "[1]")


@scenario("SockJS: JSON-P polls", SOCKJS)
async def play(w):  # noqa: F811
    path = f"/s/0/{w.key}"
    await w.fetch(f"GET {path}/jsonp?c=call.back")
    kind = ["Content-Type: application/x-www-form-urlencoded"]
    await w.fetch(f"POST {path}/jsonp_send", kind, "d=%5B%22one%22%5D")
    await w.fetch(f"GET {path}/jsonp?callback=other")
    await w.fetch(f"POST {path}/jsonp_send", kind, "e=1")


@scenario("SockJS: two polls at once", SOCKJS)
async def play(w):  # noqa: F811
    await post(w, "xhr")
    first = await w.send(f"POST /s/0/{w.key}/xhr", name="first")
    await first.silent(0.2)
    await post(w, "xhr", name="second")


@scenario("SockJS: a framed WebSocket", SOCKJS)
async def play(w):  # noqa: F811
    socket = await w.websocket(f"/s/0/{w.key}/websocket")
    await socket.receive()
    await socket.message("TEXT", '["one","two"]')
    await socket.receive()
    await socket.message("TEXT", '"three"')
    await socket.receive()


@scenario("SockJS: a raw WebSocket", SOCKJS)
async def play(w):  # noqa: F811
    socket = await w.websocket("/s/websocket")
    await socket.message("TEXT", "as it is")
    await socket.receive()


@scenario("SockJS: a backend by events", ",sockjs=/s {target},over_http")
async def play(w):  # noqa: F811
    kind = [("Content-Type", "application/websocket-events")]
    w.reply(Reply(body=events("OPEN"), headers=kind), Reply(body=events(("TEXT", "echo")), headers=kind),
            Reply(body=events(("CLOSE", b"\x0b\xb8done")), headers=kind))
    await post(w, "xhr")
    await post(w, "xhr_send", '["hi"]')
    await post(w, "xhr")
    await post(w, "xhr_send", '["bye"]')
    await post(w, "xhr")
