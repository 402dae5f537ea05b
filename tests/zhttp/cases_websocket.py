"""WebSockets over streams."""

from harness import case

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def accept(lab, path="/ws", headers="", answered=(), host="a", **fields):
    client = lab.connect().upgrade(path, host, headers)
    exchange = lab.worker.init()
    exchange.send(**{"code": 101, "reason": "Switching Protocols", "headers": [list(pair) for pair in answered], "credits": 200000, **fields})
    response = client.head()
    assert response.code == 101, response
    return client, exchange, response


@case()
def a_websocket_is_offered_and_accepted(lab):
    client, exchange, response = accept(lab, "/chat?x=1", "Sec-WebSocket-Protocol: a, b\r\nOrigin: http://o\r\n", [("Sec-WebSocket-Protocol", "b"), ("X-A", "1"), ("Sec-WebSocket-Accept", "wrong")])
    packet = exchange.packet
    assert packet["uri"] == b"ws://a/chat?x=1" and packet["credits"] > 0, packet
    assert "more" not in packet and "body" not in packet and "stream" not in packet, packet
    assert [b"Sec-WebSocket-Protocol", b"a, b"] in packet["headers"] and [b"Origin", b"http://o"] in packet["headers"], packet
    assert response.values("sec-websocket-accept") == ["BACScCJPNqyz+UBoqMH89VmURoA="], response
    assert response.values("sec-websocket-protocol") == ["b"] and response.values("x-a") == ["1"], response
    client.close()


@case()
def messages_go_both_ways(lab):
    client, exchange, _ = accept(lab)
    client.frame(TEXT, "hello")
    packet = exchange.next()
    assert packet["body"] == b"hello" and packet.get("content-type", b"text") == b"text" and "more" not in packet, packet
    client.frame(BINARY, b"\0\xff")
    packet = exchange.next()
    assert packet["body"] == b"\0\xff" and packet["content-type"] == b"binary", packet
    exchange.send(content_type="text", body="hi")
    assert client.message() == (TEXT, b"hi")
    exchange.send(content_type="binary", body=b"\1\2")
    assert client.message() == (BINARY, b"\1\2")
    exchange.send(body="text by default")
    assert client.message() == (TEXT, b"text by default")
    client.close()


@case()
def taken_messages_are_granted_back(lab):
    client, exchange, _ = accept(lab)
    exchange.send(content_type="binary", body=b"x" * 100)
    assert client.message() == (BINARY, b"x" * 100)
    credit = exchange.next()
    assert (credit["type"], credit["credits"]) == (b"credit", 100), credit
    client.close()


@case()
def pieces_make_one_message(lab):
    client, exchange, _ = accept(lab)
    client.frame(TEXT, "one ", fin=False).frame(0, "two ", fin=False).frame(0, "three")
    body, more = b"", True
    while more:
        packet = exchange.next()
        body += packet.get("body", b"")
        more = packet.get("more", False)
    assert body == b"one two three"
    exchange.send(content_type="text", body="a", more=True)
    exchange.send(content_type="text", body="b", more=True)
    exchange.send(content_type="text", body="c")
    assert client.message() == (TEXT, b"abc")
    client.close()


@case()
def pings_and_pongs_are_passed_on(lab):
    if lab.role == "gateway" and not lab.genuine:
        # A gateway of ours answers pings itself unless it is told otherwise.
        client, exchange, _ = accept(lab)
        client.frame(PING, "hi")
        assert client.read_frame() == (PONG, True, b"hi")
    else:
        client, exchange, _ = accept(lab)
        client.frame(PING, "hi")
        packet = exchange.next()
        assert (packet["type"], packet.get("body")) == (b"ping", b"hi"), packet
        exchange.send(type="pong", body="hi")
        assert client.read_frame() == (PONG, True, b"hi")
    exchange.send(type="ping", body="you")
    assert client.read_frame() == (PING, True, b"you")
    client.frame(PONG, "you")
    packet = exchange.data()
    assert (packet["type"], packet.get("body")) == (b"pong", b"you"), packet
    client.close()


@case()
def a_client_closes(lab):
    client, exchange, _ = accept(lab)
    client.frame(CLOSE, b"\x03\xe8bye")
    packet = exchange.next()
    assert (packet["type"], packet["code"], packet["body"]) == (b"close", 1000, b"bye"), packet
    exchange.send(type="close", code=1000, body="bye")
    assert client.read_frame() == (CLOSE, True, b"\x03\xe8bye")
    assert client.ended()
    lab.worker.quiet(0.2)


@case()
def a_worker_closes(lab):
    client, exchange, _ = accept(lab)
    exchange.send(body="last words")
    exchange.send(type="close", code=4001, body="enough")
    assert client.message() == (TEXT, b"last words")
    assert client.read_frame() == (CLOSE, True, b"\x0f\xa1enough")
    client.frame(CLOSE, b"\x0f\xa1enough")
    packet = exchange.data()
    assert (packet["type"], packet["code"]) == (b"close", 4001), packet
    assert client.ended()


@case()
def a_client_that_is_lost_is_told(lab):
    client, exchange, _ = accept(lab)
    client.close()
    assert exchange.next()["type"] == b"cancel"


@case()
def a_worker_that_cancels_ends_the_websocket(lab):
    for fields in [{"type": "cancel"}, {"type": "error", "condition": "disconnected"}]:
        client, exchange, _ = accept(lab)
        exchange.send(**fields)
        assert client.ended()


@case()
def a_refusal_reaches_the_client(lab):
    client = lab.connect().upgrade()
    lab.worker.init().send(type="error", condition="rejected", code=403, reason="Forbidden", headers=[["X-A", "1"], ["Content-Length", "99"]], body="no")
    response = client.response()
    assert (response.code, response.reason, response.body) == (403, "Forbidden", b"no"), response
    assert response.values("x-a") == ["1"], response


@case(waft=True)
def a_refusal_may_be_an_ordinary_answer(lab):
    client = lab.connect().upgrade()
    lab.worker.init().answer("no", code=404)
    response = client.response()
    assert (response.code, response.body) == (404, b"no"), response


@case(waft=True)
def other_failures_are_bad_gateways(lab):
    for condition in ["undefined-condition", "tls-error"]:
        client = lab.connect().upgrade()
        lab.worker.init().send(type="error", condition=condition)
        assert client.response().code == 502


@case(waft=True)
def an_acceptance_may_follow_signs_of_life_and_grant_nothing(lab):
    client = lab.connect().upgrade()
    exchange = lab.worker.init()
    exchange.send(type="keep-alive")
    exchange.send(code=101, reason="Switching Protocols")
    assert client.head().code == 101
    client.frame(TEXT, "hello")
    assert exchange.next()["body"] == b"hello"
    client.close()


@case()
def a_worker_gets_no_more_than_it_granted(lab):
    client, exchange, _ = accept(lab, credits=10)
    client.frame(BINARY, bytes(range(25)))
    got, more, credits = b"", True, 10
    if lab.genuine and lab.role == "gateway":
        # Pushpin passes whole frames on, whatever their size.
        client.close()
        return
    while more:
        packet = exchange.next()
        got += packet.get("body", b"")
        credits -= len(packet.get("body", b""))
        assert credits >= 0, "more was sent than granted"
        more = packet.get("more", False)
        if more and credits == 0:
            lab.worker.quiet(0.1)
            exchange.send(type="credit", credits=10)
            credits = 10
    assert got == bytes(range(25))
    client.close()


@case(waft=True)
def a_client_that_reads_nothing_gets_no_more_than_a_window(lab):
    client, exchange, _ = accept(lab)
    credits, sent = exchange.packet["credits"], 0
    while credits:
        exchange.send(content_type="binary", body=b"x" * credits)
        sent, credits = sent + credits, 0
        while lab.worker.dealer.poll(700):
            packet = exchange.next(alive=True)
            credits += packet.get("credits", 0)
            if credits or packet.get("type") == b"keep-alive":
                break
    assert sent < 20_000_000, sent
    client.close()
    assert exchange.data()["type"] == b"cancel"


@case(waft=True)
def a_client_that_floods_is_not_read_further_than_the_credits(lab):
    client, exchange, _ = accept(lab, credits=1000)
    client.socket.settimeout(1)
    try:
        for _ in range(400):
            client.frame(BINARY, b"x" * 100_000)
        flooded = True
    except TimeoutError:
        flooded = False
    assert not flooded, "everything was read"
    other = lab.get("/other")
    lab.worker.init().answer("meanwhile")
    assert other.response().body == b"meanwhile"
    client.close()


@case(waft=True)
def packets_that_no_websocket_has_are_dropped(lab):
    client, exchange, _ = accept(lab)
    exchange.send(type="ping", body="x" * 200)
    exchange.send(type="close", code=1005, body="x")
    assert client.read_frame() == (CLOSE, True, b"")
    client.close()


@case("front")
def a_front_refuses_websockets_on_the_other_interface(lab):
    response = lab.connect(lab.server.req_port).upgrade(host="req").response()
    assert (response.code, response.body) == (400, b"WebSockets not supported on req mode interface.\n"), response


@case("gateway")
def a_gateway_refuses_websockets_on_the_other_interface(lab):
    assert lab.connect().upgrade(host="req").response().code == 502


@case("gateway")
def events_may_go_by_requests(lab):
    client = lab.connect().upgrade("/over", "over")
    exchange = lab.worker.init()
    packet = exchange.packet
    assert packet["method"] == b"POST" and packet["uri"] == b"http://over/over" and exchange.body() == b"OPEN\r\n", packet
    exchange.answer("OPEN\r\n", headers=[("Content-Type", "application/websocket-events")])
    assert client.head().code == 101
    client.frame(TEXT, "hello")
    exchange = lab.worker.init()
    assert exchange.body() == b"TEXT 5\r\nhello\r\n", exchange.packet
    exchange.answer("TEXT 2\r\nhi\r\n", headers=[("Content-Type", "application/websocket-events")])
    assert client.message() == (TEXT, b"hi")
    client.close()
    assert lab.worker.init().body().startswith(b"DISCONNECT")
