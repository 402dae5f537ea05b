"""GRIP instructs from workers."""

import json

from harness import case, wait_for
from tnetstring import decode, encode

TEXT = 1


def item(channel, text, **more):
    formats = {"http-stream": {"content": text}, "http-response": {"body": text}, "ws-message": {"content": text}}
    return json.dumps({"items": [{"channel": channel, "formats": formats, **more}]})


def published_until(lab, client, text):
    """Publishes until the client has something: a subscription is not told of."""

    def arrived():
        lab.server.publish(text)
        client.socket.settimeout(0.3)
        try:
            return client.more()
        except TimeoutError:
            return False

    if not client.buffer:
        wait_for(arrived)
    client.socket.settimeout(10)


def rep_worker(rep, requests):
    """The example of a worker as Pushpin's users write it: one REP socket, an instruct for every request."""
    for _ in range(requests):
        m_raw = rep.recv()
        req = decode(m_raw[1:])
        resp = {"id": req["id"], "code": 200, "reason": "OK"}
        resp["headers"] = [["Grip-Hold", "response"], ["Grip-Channel", "rep-test"]]
        resp["body"] = "timed out\n"
        rep.send(b"T" + encode(resp))


@case("gateway")
def a_worker_with_one_socket_holds_a_request(lab):
    client = lab.connect().send("GET /hold HTTP/1.1\r\nHost: req\r\n\r\n")
    rep_worker(lab.worker.rep, 1)
    published_until(lab, client, item("rep-test", "hello there\n"))
    response = client.response()
    assert (response.code, response.body) == (200, b"hello there\n"), response


@case("gateway")
def a_stream_is_held_and_fed(lab):
    client = lab.get("/stream")
    lab.worker.init().answer("welcome\n", headers=[("Grip-Hold", "stream"), ("Grip-Channel", "streamed"), ("Content-Type", "text/plain")])
    head = client.head()
    assert head.values("grip-hold") == [] and client.chunk() == b"welcome\n", head
    published_until(lab, client, item("streamed", "news\n"))
    assert client.chunk() == b"news\n"
    client.close()


@case("gateway")
def an_instruct_may_come_piece_by_piece(lab):
    client = lab.get("/stream")
    exchange = lab.worker.init()
    exchange.send(type="keep-alive")
    exchange.answer("wel", headers=[("Grip-Hold", "stream"), ("Grip-Channel", "pieces")], more=True)
    exchange.send(body="come\n")
    head = client.head()
    body = b""
    while len(body) < 8:
        body += client.chunk()
    assert head.code == 200 and body == b"welcome\n", body
    published_until(lab, client, item("pieces", "news\n"))
    assert client.chunk() == b"news\n"
    client.close()


@case("gateway")
def a_body_of_instructions_is_obeyed(lab):
    client = lab.get("/json")
    instruct = {"hold": {"mode": "response", "channels": [{"name": "by-json"}]}, "response": {"body": "late\n"}}
    lab.worker.init().answer(json.dumps(instruct), headers=[("Content-Type", "application/grip-instruct")])
    published_until(lab, client, item("by-json", "now\n"))
    assert client.response().body == b"now\n"


@case("gateway")
def a_long_poll_with_a_body_is_asked_again_with_it(lab):
    listener = lab.get("/stream")
    lab.worker.init().answer("welcome", headers=[("Grip-Hold", "stream"), ("Grip-Channel", "recovered")])
    assert listener.head().code == 200 and listener.chunk() == b"welcome"
    # Something was published behind what the worker knows, and not for long-polls: it is asked once more.
    news = json.dumps({"items": [{"channel": "recovered", "id": "5", "formats": {"http-stream": {"content": "news"}}}]})
    published_until(lab, listener, news)
    client = lab.post("question", "/again")
    headers = [("Grip-Hold", "response"), ("Grip-Channel", "recovered; prev-id=1")]
    lab.worker.init().answer("", headers=headers)
    exchange = lab.worker.init()
    assert exchange.packet["body"] == b"question", exchange.packet
    exchange.answer("recovered body")
    assert client.response().body == b"recovered body"


@case("gateway")
def a_next_link_is_followed_to_the_worker(lab):
    client = lab.get("/page1")
    lab.worker.init().answer("page 1\n", headers=[("Grip-Link", "</page2>; rel=next")])
    exchange = lab.worker.init()
    assert exchange.packet["uri"].endswith(b"/page2"), exchange.packet
    exchange.answer("page 2\n", headers=[("Grip-Hold", "stream"), ("Grip-Channel", "linked")])
    head, body = client.head(), b""
    while b"page 2\n" not in body:
        body += client.chunk()
    assert head.code == 200 and body == b"page 1\npage 2\n", body
    published_until(lab, client, item("linked", "news\n"))
    assert client.chunk() == b"news\n"
    client.close()


@case("gateway")
def a_websocket_is_subscribed_by_its_worker(lab):
    client = lab.connect().upgrade()
    exchange = lab.worker.init()
    offered = [value for name, value in exchange.packet["headers"] if name.lower() == b"sec-websocket-extensions"]
    assert offered == [b"grip"], exchange.packet
    exchange.send(code=101, reason="Switching Protocols", headers=[["Sec-WebSocket-Extensions", "grip; message-prefix=\"m:\""]], credits=200000)
    assert client.head().code == 101
    exchange.send(content_type="text", body='c:{"type": "subscribe", "channel": "sockets"}')
    exchange.send(content_type="text", body="m:welcome")
    got = client.message()
    assert got == (TEXT, b"welcome"), got
    published_until(lab, client, item("sockets", "news"))
    assert client.message() == (TEXT, b"news")
    client.frame(TEXT, "back")
    assert exchange.data()["body"] == b"back"
    client.close()


@case("gateway")
def a_malformed_instruct_is_an_error(lab):
    client = lab.get("/", host="debug")
    lab.worker.init().answer("", headers=[("Grip-Hold", "sideways"), ("Grip-Channel", "x")])
    response = client.response()
    assert response.code in (502, 503) and b"Grip-Hold" in response.body, response


@case("gateway")
def an_instruct_without_a_hold_is_an_answer(lab):
    client = lab.get()
    lab.worker.init().answer("plain", headers=[("Grip-Status", "201 Made"), ("X-A", "1")])
    response = client.response()
    assert (response.code, response.reason, response.body) == (201, "Made", b"plain"), response
