"""Workers that break the rules, vanish, stop or flood."""

import socket
import time

from harness import case, wait_for

ERROR = b"Error while proxying to origin.\n"


def failed(lab, client):
    """The request failed before an answer had begun."""
    if lab.genuine and lab.role == "front":
        assert client.ended(), "the connection is cut"
        return
    response = client.response()
    assert response.code == 502 and response.body == ERROR, response


def cut(lab, client):
    """The answer broke off: its client sees that something is missing."""
    response = client.response()
    assert response.code == 200 and not response.complete, response


@case()
def an_error_of_the_worker_ends_the_request(lab):
    for condition in ["session-timeout", "undefined-condition", "disconnected", "max-size-exceeded", "tomorrow"]:
        client = lab.get()
        lab.worker.init().send(type="error", condition=condition)
        failed(lab, client)
    lab.worker.quiet(0.1)


@case("gateway")
def some_conditions_have_answers_of_their_own(lab):
    for condition, code, text in [("policy-violation", 502, b"Error: Origin host/IP blocked.\n"), ("length-required", 411, b"Must provide Content-Length header.\n")]:
        client = lab.get(host="debug")
        lab.worker.init().send(type="error", condition=condition)
        response = client.response()
        assert (response.code, response.body) == (code, text), response


@case()
def a_cancel_ends_the_request(lab):
    client = lab.get()
    lab.worker.init().send(type="cancel")
    failed(lab, client)
    lab.worker.quiet(0.1)


@case()
def a_cancel_needs_no_number(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.raw({"from": "w1", "id": exchange.id, "type": "cancel"})
    failed(lab, client)


@case(waft=True)
def a_cancel_in_the_middle_cuts_the_answer(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.answer("begin", more=True)
    exchange.next()
    exchange.send(type="cancel")
    cut(lab, client)


@case(waft=True)
def an_error_in_the_middle_cuts_the_answer(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.answer("begin", more=True, headers=[("Content-Length", "100")])
    exchange.next()
    exchange.send(type="error", condition="disconnected")
    cut(lab, client)


@case()
def a_client_that_goes_away_is_told_to_its_worker(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.send(type="keep-alive")
    exchange.answer("begin", more=True)
    assert exchange.next()["type"] == b"credit"
    client.close()
    cancel = exchange.next()
    assert cancel["type"] == b"cancel" and cancel["from"] == exchange.address, cancel


@case("front")
def a_client_that_goes_away_before_any_answer_is_told_too(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.send(type="keep-alive")
    client.close()
    assert exchange.next()["type"] == b"cancel"


@case("gateway", waft=True)
def a_client_that_ends_its_side_gets_its_answer(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.send(type="keep-alive")
    client.socket.shutdown(socket.SHUT_WR)
    lab.worker.quiet(1.5)
    exchange.answer("all the same")
    assert client.response().body == b"all the same"


@case("front", waft=True)
def a_packet_for_a_client_that_went_away_unnoticed_is_cancelled(lab):
    client = lab.get()
    exchange = lab.worker.init()
    client.close()
    time.sleep(1.5)
    exchange.send(type="keep-alive")
    cancel = lab.worker.later()
    assert cancel["type"] == b"cancel" and cancel["id"] == exchange.id, cancel


@case()
def numbers_that_are_not_next_end_the_exchange(lab):
    for seq in [5, 0]:
        client = lab.get()
        exchange = lab.worker.init()
        exchange.send(type="keep-alive")
        exchange.raw({"from": "w1", "id": exchange.id, "seq": seq, "code": 200, "reason": "OK", "body": "x"})
        failed(lab, client)
    lab.worker.drain()


@case("gateway")
def whoever_breaks_the_order_is_cancelled(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.send(type="keep-alive")
    exchange.raw({"from": "w1", "id": exchange.id, "seq": 7, "type": "keep-alive"})
    failed(lab, client)
    assert exchange.next()["type"] == b"cancel"


@case("front")
def workers_that_do_not_number_their_packets_are_understood(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.raw({"from": "w1", "id": exchange.id, "code": 200, "reason": "OK", "body": "a", "more": True})
    exchange.raw({"from": "w1", "id": exchange.id, "body": "b"})
    assert client.response().body == b"ab"


@case(waft=True)
def workers_that_say_nothing_of_themselves_are_understood(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.raw({"id": exchange.id, "code": 200, "reason": "OK", "body": "short"})
    assert client.response().body == b"short"


# What is no packet at all. The last ones name their exchange.
NO_PACKETS = [
    b"",
    b"T",
    b"X1:a,",
    b"J{}",
    b'J{"id":"1","code":200}',
    b"T1:a,",
    b"T5:hello",
    b"T999999999:x,",
    b"T-1:,",
    b"T4:true!",
    b"T0:}x",
    b"T3:1:a}",
    b"T8:1:a,1:b,]",
    b"T" + b"9" * 400,
    b"T" + b"1:" * 2000,
    b"\0\xff\xfe",
]


@case()
def what_is_no_packet_is_dropped(lab):
    if lab.genuine and lab.role == "gateway":
        # Pushpin serves no more requests after some of these.
        return
    before = lab.server.metric("waft_worker_packets_malformed_total") if waft_gateway(lab) else 0
    client = lab.get()
    exchange = lab.worker.init()
    exchange.send(type="keep-alive")
    for payload in NO_PACKETS:
        exchange.raw(payload)
    lab.worker.pub.send(b"no blank")
    exchange.answer("unharmed")
    assert client.response().body == b"unharmed"
    if waft_gateway(lab):
        counted = lab.server.metric("waft_worker_packets_malformed_total") - before
        # What has no blank is for no address, so that it does not even arrive.
        assert counted == len(NO_PACKETS), counted
        assert "A packet of a worker cannot be read" in lab.server.log()


def waft_gateway(lab):
    return lab.role == "gateway" and not lab.genuine


WRONG_FIELDS = [
    {"code": "x"},
    {"code": -1},
    {"code": 70000},
    {"more": 1},
    {"credits": -5},
    {"headers": "x"},
    {"headers": [["a"]]},
    {"headers": [["a", "b\r\nEvil: 1"]]},
    {"headers": [["a b", "c"]]},
    {"body": 5},
    {"type": 5},
    {"reason": []},
    {"content-type": {}},
    {"seq": "x"},
]


@case(waft=True)
def fields_of_the_wrong_kind_end_the_exchange(lab):
    for fields in WRONG_FIELDS:
        client = lab.get()
        exchange = lab.worker.init()
        exchange.send(type="keep-alive")
        exchange.raw({"from": "w1", "id": exchange.id, "seq": 1, "code": 200, "reason": "OK", "body": "x", **fields})
        failed(lab, client)
        assert exchange.next()["type"] == b"cancel"


@case(waft=True)
def a_reason_cannot_split_the_answer(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.raw({"from": "w1", "id": exchange.id, "seq": 0, "code": 200, "reason": "OK\r\nEvil: 1", "body": "x"})
    response = client.response()
    assert not response.values("evil"), response


@case(waft=True)
def an_answer_begins_with_a_status(lab):
    for fields in [{"body": "x"}, {"body": "x", "more": True}, {"code": 101}, {"code": 0}, {"code": 99}, {}]:
        client = lab.get()
        lab.worker.init().send(**fields)
        failed(lab, client)
    lab.worker.drain()


@case(waft=True)
def a_body_longer_than_announced_is_cut(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.answer("12345", headers=[("Content-Length", "5")], more=True)
    exchange.send(body="GET /smuggled HTTP/1.1\r\n\r\n", more=True)
    response = client.response()
    assert response.body == b"12345" and client.ended() and client.buffer == b"", response


@case(waft=True)
def a_body_shorter_than_announced_is_cut(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.answer("12345", headers=[("Content-Length", "10")], more=True)
    exchange.send(body="678")
    cut(lab, client)


@case()
def unknown_kinds_are_signs_of_life(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.send(type="keep-alive")
    if not lab.genuine:
        # Both programs end the exchange.
        exchange.send(type="dance")
    exchange.send(type="credit", credits=0)
    exchange.answer("x", tomorrow=[1, {"a": None}], user_data="u")
    assert client.response().body == b"x"


@case()
def unknown_ids_harm_nobody(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.send(type="keep-alive")
    for id in ["", "x", "0", "0-fffffffffffffffff", "-", "99-99", exchange.id + b"0", b"\xff\xfe", exchange.id.upper() + b" "]:
        exchange.raw({"from": "w1", "id": id, "seq": 0, "code": 200, "reason": "OK", "body": "stolen"})
    exchange.raw({"from": "w1", "seq": 0, "code": 200, "reason": "OK", "body": "no id"})
    exchange.raw({"from": "w1", "id": [{"id": "x", "seq": 1}, {"id": "y", "seq": 1}], "type": "keep-alive"})
    exchange.answer("mine")
    assert client.response().body == b"mine"
    lab.worker.drain()


@case(waft=True)
def unknown_ids_are_cancelled(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.raw({"from": "w1", "id": b"0-ffffff", "seq": 0, "type": "keep-alive"})
    cancel = lab.worker.later()
    assert (cancel["type"], cancel["id"]) == (b"cancel", b"0-ffffff") and "seq" not in cancel, cancel
    exchange.answer("x")
    client.response()


@case(waft=True)
def a_stranger_cannot_answer_for_another(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.send(type="keep-alive")
    stranger = lab.another("w3")
    stranger.publish(exchange.address, b"T" + encode({"from": "w3", "id": exchange.id, "seq": 1, "code": 200, "reason": "OK", "body": "stolen"}))
    stranger.publish(exchange.address, b"T" + encode({"from": "w3", "id": exchange.id, "seq": 1, "type": "cancel"}))
    time.sleep(0.3)
    exchange.answer("mine")
    assert client.response().body == b"mine"


from tnetstring import encode  # noqa: E402  (beside what uses it)


@case()
def data_after_the_end_is_for_nobody(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.answer("whole")
    exchange.send(body="more")
    exchange.send(type="credit", credits=5)
    assert client.response().body == b"whole"
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    lab.worker.init().answer("next")
    assert client.response().body == b"next"
    lab.worker.drain()


@case("gateway", waft=True)
def one_packet_beyond_the_credits_is_borne(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.answer(b"x" * 1_000_000)
    assert client.response().body == b"x" * 1_000_000


@case(waft=True)
def a_flood_beyond_the_credits_ends_its_exchange_alone(lab):
    slow = lab.get("/slow")
    exchange = lab.worker.init()
    exchange.answer(more=True)
    other = lab.get("/other")
    innocent = lab.worker.init()
    for _ in range(40):
        exchange.send(body=b"x" * 400_000, more=True)
    innocent.answer("unharmed")
    assert other.response().body == b"unharmed"
    response = slow.response()
    assert not response.complete and len(response.body) < 3_000_000, len(response.body)
    lab.worker.drain()


@case(waft=True)
def a_flood_of_small_packets_is_borne(lab):
    client = lab.get()
    exchange = lab.worker.init()
    exchange.send(type="keep-alive")
    for _ in range(20_000):
        exchange.raw({"from": "w1", "id": "0-abcdef", "seq": 0, "type": "cancel"})
    exchange.answer("done")
    assert client.response().body == b"done"


@case("gateway", waft=True)
def a_worker_that_vanishes_is_noticed(lab):
    begun, silent = lab.get("/begun"), lab.get("/silent")
    exchanges = [lab.worker.init(), lab.worker.init()]
    for exchange in exchanges:
        if exchange.packet["uri"].endswith(b"begun"):
            exchange.answer("begin", more=True)
    before = lab.server.metric("waft_workers_lost_total")
    cut(lab, begun)
    response = silent.response()
    assert response.code == 502 and response.body == ERROR, response
    assert lab.server.metric("waft_workers_lost_total") - before >= 2
    lab.worker.drain()


@case("gateway", waft=True)
def a_worker_whose_socket_has_gone_is_noticed_at_once(lab):
    client = lab.connect().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n").send(b"x" * 300_000)
    exchange = lab.worker.init()
    ghost = lab.another("ghost")
    exchange.worker, exchange.name = ghost, "ghost"
    exchange.send(type="credit", credits=10)
    exchange.next()
    ghost.dealer.close()
    began = time.monotonic()
    exchange.send(type="credit", credits=10)
    failed(lab, client)
    assert time.monotonic() - began < 3.5, "before the worker would count as silent"


@case("gateway", waft=True)
def signs_of_life_go_both_ways(lab):
    clients = [lab.get("/1"), lab.get("/2")]
    exchanges = [lab.worker.init(), lab.worker.init()]
    for exchange in exchanges:
        exchange.send(type="keep-alive", ext={"multi": True})
    began = time.monotonic()
    seen = {exchange.id: 0 for exchange in exchanges}
    # For longer than a silent worker would be waited for, and until each was told three times.
    while time.monotonic() - began < 5.5 or min(seen.values()) < 3:
        assert time.monotonic() - began < 30, seen
        packet = lab.worker.later()
        assert packet["type"] == b"keep-alive", packet
        for entry in packet["id"] if isinstance(packet["id"], list) else [packet]:
            seen[entry["id"]] += 1
            assert entry["seq"] == seen[entry["id"]], packet
        for exchange in exchanges:
            exchange.send(type="keep-alive")
    for exchange in exchanges:
        exchange.answer("alive")
    for client in clients:
        assert client.response().body == b"alive"


@case(waft=True)
def a_worker_that_grants_nothing_more_holds_up_its_own_client_alone(lab):
    stuck = lab.connect().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n")
    # Not so much that the end of the client would be held up behind it.
    stuck.send(b"x" * (250_000 if lab.role == "gateway" else 50_000))
    exchange = lab.worker.init()
    exchange.send(type="credit", credits=100)
    assert len(exchange.next()["body"]) == 100
    other = lab.get("/other")
    lab.worker.init().answer("unharmed")
    assert other.response().body == b"unharmed"
    stuck.close()
    assert exchange.next()["type"] == b"cancel"


@case()
def what_is_no_reply_fails_its_request(lab):
    if lab.genuine and lab.role == "front":
        return
    for packet in [{"type": "error", "condition": "bad-request"}, {"code": 200, "reason": "OK", "body": "x", "more": True}]:
        client = lab.post("x", host="req")
        lab.reply(packet)
        response = client.response()
        assert response.code == 502, response


@case(waft=True)
def an_unreadable_reply_harms_nobody_else(lab):
    client = lab.post("x", host="req")
    lab.reply(b"nonsense")
    other = lab.post("y", host="req")
    lab.reply({"code": 200, "reason": "OK", "body": "fine"})
    assert other.response().body == b"fine"
    client.close()


@case("front")
def a_front_cuts_or_answers_a_request_without_an_answer(lab):
    client = lab.get()
    lab.worker.init().send(type="error", condition="bad-request")
    failed(lab, client)
    wait_for(lambda: True)
