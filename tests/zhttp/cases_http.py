"""Requests, responses, bodies and their credits."""

import threading
import time

from harness import case


@case()
def a_request_says_who_asks_for_what(lab):
    client = lab.post("hello", "/a%20b?c=d", host="h.example:81", headers="X-A: 1\r\nX-a: 2\r\nX-Empty:\r\n")
    exchange = lab.worker.init()
    packet = exchange.packet
    assert packet["method"] == b"POST" and packet["uri"] == b"http://h.example:81/a%20b?c=d", packet
    assert packet["stream"] is True and packet["ext"] == {"multi": True}, packet
    assert [[b"X-A", b"1"], [b"X-a", b"2"], [b"X-Empty", b""]] == [pair for pair in packet["headers"] if pair[0][:1] == b"X"], packet
    assert [b"Host", b"h.example:81"] in packet["headers"] and [b"Content-Length", b"5"] in packet["headers"], packet
    if lab.role == "gateway":
        assert packet["credits"] == 200000 and packet["body"] == b"hello" and "more" not in packet, packet
        assert packet["ignore-policies"] is True, packet
    else:
        assert packet["credits"] == 8192 and "body" not in packet and packet["more"] is True, packet
        assert packet["peer-address"] == b"127.0.0.1" and packet["peer-port"] > 0, packet
    exchange.answer("hi", headers=[("X-B", "2"), ("X-B", "3")])
    response = client.response()
    assert (response.code, response.reason, response.body) == (200, "OK", b"hi"), response
    assert response.values("x-b") == ["2", "3"] and response.values("content-length") == ["2"], response


@case("front")
def a_front_passes_on_every_header_as_it_came(lab):
    headers = "Accept-Encoding: gzip\r\nTE: trailers\r\nConnection: keep-alive, x-foo\r\nX-Foo: 1\r\nGrip-Sig: x\r\nX-Forwarded-For: 1.2.3.4\r\n"
    client = lab.get("/", headers=headers)
    exchange = lab.worker.init()
    sent = [[name.encode(), value.encode()] for name, value in (line.split(": ", 1) for line in headers.strip().split("\r\n"))]
    assert exchange.packet["headers"] == [[b"Host", b"a"]] + sent, exchange.packet
    exchange.answer("x", headers=[("Grip-Hold", "stream"), ("Grip-Channel", "c")])
    response = client.response()
    assert response.values("grip-hold") == ["stream"] and response.body == b"x", response


@case("gateway")
def a_gateway_makes_the_request_anew(lab):
    client = lab.get("/", headers="Accept-Encoding: gzip\r\nConnection: x-foo\r\nX-Foo: 1\r\nGrip-Sig: forged\r\nGrip-Feature: x\r\n")
    exchange = lab.worker.init()
    names = [name.lower() for name, _ in exchange.packet["headers"]]
    assert b"accept-encoding" not in names and b"connection" not in names, names
    signatures = [value for name, value in exchange.packet["headers"] if name.lower() == b"grip-sig"]
    assert len(signatures) == 1 and signatures[0].count(b".") == 2, signatures
    exchange.answer("x")
    assert client.response().body == b"x"


@case()
def an_answer_comes_piece_by_piece(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.send(type="keep-alive")
    exchange.answer("one", more=True)
    assert client.head().values("transfer-encoding") == ["chunked"]
    assert client.chunk() == b"one"
    assert exchange.next()["credits"] == 3
    exchange.send(body="three", more=True)
    assert client.chunk() == b"three"
    credit = exchange.next()
    assert (credit["type"], credit["credits"]) == (b"credit", 5), credit
    exchange.send()
    assert client.chunk() == b""
    lab.worker.quiet(0.1)


@case()
def an_announced_length_is_kept(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.answer("one", headers=[("Content-Length", "8")], more=True)
    exchange.send(body="three")
    response = client.response()
    assert response.values("content-length") == ["8"] and response.body == b"onethree", response
    assert client.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n") and lab.worker.init().answer("x"), "the connection goes on"
    assert client.response().body == b"x"


@case()
def answers_without_a_body_have_none(lab):
    client = lab.connect()
    for code, method in [(204, "GET"), (304, "GET"), (200, "HEAD")]:
        client.send(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n")
        lab.worker.init().answer(code=code)
        response = client.response(to_head=True)
        assert response.code == code, response


@case()
def what_frames_a_workers_answer_goes_no_further(lab):
    client = lab.get()
    headers = [("Connection", "close"), ("Transfer-Encoding", "chunked"), ("Keep-Alive", "x"), ("X-A", "1")]
    lab.worker.init().answer("abc", headers=headers)
    response = client.response()
    assert response.body == b"abc" and response.values("x-a") == ["1"] and response.values("keep-alive") in ([], ["x"]), response
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    lab.worker.init().answer("next")
    assert client.response().body == b"next"


@case()
def old_clients_get_an_answer_without_chunks(lab):
    client = lab.connect().send("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    exchange = lab.worker.init()
    exchange.answer("one", more=True)
    exchange.send(body="two")
    response = client.response()
    assert response.body == b"onetwo" and not response.values("transfer-encoding"), response


@case()
def requests_of_one_connection_are_exchanges_of_their_own(lab):
    client = lab.connect()
    ids = set()
    for number in range(3):
        client.send(f"GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")
        exchange = lab.worker.init()
        ids.add(exchange.id)
        exchange.answer(str(number))
        assert client.response().body == str(number).encode()
    assert len(ids) == 3


@case()
def a_body_is_sent_as_far_as_the_credits(lab):
    body = bytes(range(256)) * 2000
    client = lab.connect().send(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n")
    sender = threading.Thread(target=client.send, args=(body,), daemon=True)
    sender.start()
    exchange = lab.worker.init()
    got = exchange.packet.get("body", b"")
    assert exchange.packet["more"] is True and len(got) <= 300000, len(got)
    credits, more = 0, True
    exchange.send(type="credit", credits=1000)
    credits = 1000
    while more:
        packet = exchange.data()
        got += packet.get("body", b"")
        credits -= len(packet.get("body", b""))
        assert credits >= 0, "more was sent than granted"
        more = packet.get("more", False)
        if more and credits == 0:
            lab.worker.quiet(0.02)
            exchange.send(type="credit", credits=40000)
            credits = 40000
    assert got == body
    sender.join(WAIT_JOIN)
    exchange.answer("thanks")
    assert client.response().body == b"thanks"


WAIT_JOIN = 10


@case()
def a_chunked_body_arrives_whole(lab):
    client = lab.post("hello world", chunked=True)
    exchange = lab.worker.init()
    got, more = exchange.packet.get("body", b""), exchange.packet.get("more", False)
    if more:
        exchange.send(type="credit", credits=5)
    while more:
        packet = exchange.data()
        got += packet.get("body", b"")
        more = packet.get("more", False)
        if more and len(got) == 5:
            exchange.send(type="credit", credits=100)
    assert got == b"hello world"
    exchange.answer("x")
    assert client.response().body == b"x"


@case()
def an_answer_may_come_before_the_body_has_gone(lab):
    client = lab.connect().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    client.send(b"x" * 300_000)
    exchange = lab.worker.init()
    assert exchange.packet["more"] is True
    exchange.answer("enough", code=400)
    response = client.response()
    assert (response.code, response.body) == (400, b"enough"), response


@case()
def a_large_answer_is_granted_as_the_client_takes_it(lab):
    client = lab.get()
    exchange = lab.worker.init()
    window = exchange.packet["credits"]
    body = bytes(range(251)) * 16000
    assert len(body) > 3 * window, "the reader begins on the way"
    received = {}
    reader = threading.Thread(target=lambda: received.update(response=client.response()), daemon=True)
    exchange.answer(more=True)
    credits, sent = window, 0
    while sent < len(body):
        if credits == 0:
            packet = exchange.next()
            assert packet["type"] == b"credit", packet
            credits += packet["credits"]
            assert credits <= window, "never more than the window"
            continue
        if sent >= 2 * window and reader.ident is None:
            reader.start()
        piece = body[sent : sent + min(credits, 100000)]
        credits -= len(piece)
        sent += len(piece)
        exchange.send(body=piece, more=sent < len(body) or None)
    reader.join(30)
    assert received["response"].body == body and received["response"].complete


@case()
def a_client_that_reads_nothing_stops_its_worker(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.answer(more=True)
    credits, sent = exchange.packet["credits"], 0
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if credits:
            exchange.send(body=b"x" * credits, more=True)
            sent, credits = sent + credits, 0
        if not lab.worker.dealer.poll(1000):
            break
        packet = exchange.next(alive=True)
        credits += packet.get("credits", 0)
        if not credits and packet.get("type") == b"keep-alive":
            break
    assert 8192 <= sent < 20_000_000, sent
    other = lab.get("/other")
    lab.worker.init().answer("meanwhile")
    assert other.response().body == b"meanwhile"
    client.close()


@case()
def many_requests_at_once_keep_their_answers(lab):
    clients = [lab.get(f"/{number}") for number in range(60)]
    exchanges = [lab.worker.init() for _ in clients]
    for exchange in reversed(exchanges):
        exchange.send(type="keep-alive")
    for exchange in reversed(exchanges):
        exchange.answer(exchange.packet["uri"])
    for number, client in enumerate(clients):
        assert client.response().body == f"http://a/{number}".encode()


@case()
def one_packet_may_answer_many(lab):
    clients = [lab.get(f"/{number}") for number in range(3)]
    exchanges = [lab.worker.init() for _ in clients]
    if len({exchange.address for exchange in exchanges}) > 1:
        # Clients of several threads have several addresses: those of one thread are answered together.
        groups = {}
        for exchange in exchanges:
            groups.setdefault(exchange.address, []).append(exchange)
    else:
        groups = {exchanges[0].address: exchanges}
    for group in groups.values():
        for exchange in group:
            exchange.send(type="keep-alive", ext={"multi": True})
        ids = [{"id": exchange.id, "seq": 1} for exchange in group]
        group[0].raw({"from": "w1", "id": ids, "code": 200, "reason": "OK", "body": "same"})
    for client in clients:
        assert client.response().body == b"same"


@case("front")
def a_worker_hands_an_exchange_to_another(lab):
    client = lab.get()
    exchange = lab.worker.init()
    second = lab.another("w2")
    exchange.answer("first ", more=True)
    assert exchange.next()["credits"] == 6
    exchange.send(type="handoff-start")
    assert exchange.next()["type"] == b"handoff-proceed"
    exchange.worker, exchange.name = second, "w2"
    exchange.send(body="second", more=True)
    packet = exchange.next()
    assert packet["type"] == b"credit" and packet["credits"] == 6, packet
    exchange.send(body=" third")
    assert client.response().body == b"first second third"


@case()
def the_other_interface_takes_whole_messages(lab):
    client = lab.post("question", "/q?x", host="req")
    request = lab.reply({"code": 201, "reason": "Made", "headers": [["X-A", "b"]], "body": "answer"})
    assert (request["method"], request["uri"], request["body"]) == (b"POST", b"http://req/q?x", b"question"), request
    assert "seq" not in request and "credits" not in request and "stream" not in request, request
    response = client.response()
    assert (response.code, response.reason, response.body) == (201, "Made", b"answer"), response
    assert response.values("x-a") == ["b"], response


@case()
def the_other_interface_serves_one_after_the_other(lab):
    for number in range(5):
        client = lab.post(str(number), host="req")
        lab.reply({"code": 200, "reason": "OK", "body": f"got {number}"})
        assert client.response().body == f"got {number}".encode()


@case()
def a_large_message_fits_the_other_interface(lab):
    body = b"y" * 90_000
    client = lab.post(body, host="req")
    assert lab.reply({"code": 200, "reason": "OK", "body": b"z" * 60_000})["body"] == body
    assert client.response().body == b"z" * 60_000


@case("gateway")
def a_worker_that_cannot_reach_its_own_target_is_passed_over(lab):
    client = lab.get(host="debug")
    lab.worker.init().send(type="error", condition="remote-connection-failed")
    response = client.response()
    assert response.code == 502 and b"Unable to connect to any targets. Tried: zhttp/" in response.body, response


@case("gateway", waft=True)
def another_target_is_asked_if_no_worker_is_there(lab):
    client = lab.post("body", host="fallback")
    assert lab.reply({"code": 200, "reason": "OK", "body": "second"})["body"] == b"body"
    assert client.response().body == b"second"


@case("gateway", waft=True)
def a_request_that_nobody_takes_fails_in_time(lab):
    response = lab.get(host="nobody").response()
    assert response.code == 502 and b"Unable to connect to any targets. Tried: zhttp/" in response.body, response
