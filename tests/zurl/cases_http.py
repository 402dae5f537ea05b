"""Request/reply and streams over HTTP."""

import json
import os
import socket

from harness import Daemon, case, condition, encode, wait_for


def header(packet, name):
    return [value for key, value in packet["headers"] if key.lower() == name]


def body(lab, client, id, seq, credits=0):
    """Collects a streamed response; grants back what came. Returns its packets."""
    packets = []
    while True:
        packet = client.receive()
        if packet.get("type"):
            assert packet["type"] in (b"keep-alive", b"credit"), packet
            continue
        packets.append(packet)
        if not packet.get("more"):
            return packets
        size = len(packet.get("body", b""))
        if size:
            client.more(id, seq, type="credit", credits=size)
            seq += 1


@case()
def a_request_is_answered_in_one_packet(lab):
    reply = lab.request(id="7", method="GET", uri=lab.url("/size/10"), user_data={"a": [1, None]})
    assert (reply["id"], reply["code"], reply["reason"], reply["body"]) == (b"7", 200, b"Reason 200", b"0123456789"), reply
    assert reply["user-data"] == {"a": [1, None]} and reply["seq"] == 0 and "from" not in reply, reply
    assert header(reply, b"content-length") == [b"10"]


@case()
def json_is_answered_in_json(lab):
    reply = lab.request(json_encoding=True, id="7", method="GET", uri=lab.url("/size/3"))
    assert (reply["id"], reply["code"], reply["body"]) == ("7", 200, "012"), reply


@case()
def a_request_without_an_id_is_answered_without_one(lab):
    reply = lab.request(method="GET", uri=lab.url("/size/1"))
    assert reply["code"] == 200 and "id" not in reply and "seq" not in reply, reply


@case()
def the_frames_before_the_delimiter_come_back(lab):
    reply = lab.request(frames=[b"hop1", b"hop2", b""], id="1", method="GET", uri=lab.url("/size/1"))
    assert reply["code"] == 200, reply


@case()
def the_request_is_sent_as_given(lab):
    headers = [["X-B", "2"], ["X-A", "1"], ["X-B", "3"], ["Host", "evil"], ["Connection", "x"], ["Expect", "100-continue"], ["X-Empty", ""]]
    reply = lab.request(id="1", method="PATCH", uri=lab.url("/echo/a?b=c#d"), headers=headers, body="data")
    sent = json.loads(reply["body"])
    assert (sent["method"], sent["path"], sent["body"]) == ("PATCH", "/echo/a?b=c", "data"), sent
    names = [[name, value] for name, value in sent["headers"] if name.startswith("X-")]
    assert names == [["X-B", "2"], ["X-A", "1"], ["X-B", "3"]], sent
    lower = {name.lower(): value for name, value in sent["headers"]}
    assert lower["host"] == f"127.0.0.1:{lab.backend.port}" and lower["content-length"] == "4", sent
    assert lower["accept"] == "*/*" and "gzip" in lower["accept-encoding"] and "user-agent" not in lower and "expect" not in lower, sent


@case()
def methods_without_a_body_say_so_where_one_is_usual(lab):
    for method, expected in [("GET", None), ("POST", "0"), ("PUT", "0")]:
        sent = json.loads(lab.request(id="1", method=method, uri=lab.url("/echo"))["body"])
        assert {name.lower(): value for name, value in sent["headers"]}.get("content-length") == expected, sent


@case()
def user_and_password_become_basic_authorization(lab):
    sent = json.loads(lab.request(id="1", method="GET", uri=lab.url("/echo", "user:pa%20ss@127.0.0.1"))["body"])
    assert ["Authorization", "Basic dXNlcjpwYSBzcw=="] in sent["headers"], sent


@case()
def requests_that_cannot_be_made_are_refused(lab):
    good = {"id": "1", "method": "GET", "uri": lab.url("/echo")}
    condition(lab.request(**{**good, "more": True}), "bad-request")
    condition(lab.request(**{**good, "uri": lab.ws_url("/ws")}), "bad-request")
    condition(lab.request(**{**good, "uri": "gopher://127.0.0.1/"}), "bad-request")
    condition(lab.request(id="1", method="GET"), "bad-request")
    condition(lab.request(id="1", uri=lab.url("/echo")), "bad-request")
    condition(lab.request(**{**good, "method": "HEAD", "body": "x"}), "content-not-allowed")
    condition(lab.request(**{**good, "uri": lab.url("/a b")}), "undefined-condition")


@case()
def failures_have_their_condition(lab):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    ask = lambda **fields: lab.request(id="1", method="GET", **fields)
    condition(ask(uri=f"http://127.0.0.1:{port}/"), "remote-connection-failed")
    condition(ask(uri="http://no-such-name.invalid/"), "remote-connection-failed")
    condition(ask(uri=lab.url("/size/11"), max_size=10), "max-size-exceeded")
    assert ask(uri=lab.url("/size/10"), max_size=10)["code"] == 200
    condition(ask(uri=lab.url("/hang"), timeout=200), "session-timeout")
    condition(ask(uri=lab.url("/drop")), "undefined-condition")
    condition(ask(uri=lab.url("/garbage")), "undefined-condition")
    condition(ask(uri=lab.url("/cut")), "undefined-condition")


@case()
def bodies_of_every_framing_are_read(lab):
    ask = lambda path, method="GET": lab.request(id="1", method=method, uri=lab.url(path))
    assert ask("/chunked")["body"] == b"hello world"
    assert header(ask("/chunked"), b"x-a") == [b"1", b"2"]
    assert ask("/until-close")["body"] == b"until the end"
    assert ask("/interim")["body"] == b"final"
    assert ask("/gzip")["body"] == b"plain text" * 100
    for path, method in [("/status/204", "GET"), ("/status/304", "GET"), ("/size/5", "HEAD"), ("/size/0", "GET")]:
        reply = ask(path, method)
        assert "body" not in reply and "more" not in reply, reply


@case()
def redirects_are_followed_when_asked(lab):
    ask = lambda path, **fields: lab.request(id="1", uri=lab.url(path), **fields)
    assert ask("/redirect/1", method="GET")["code"] == 302
    assert ask("/redirect/8", method="GET", follow_redirects=True)["code"] == 200
    condition(ask("/redirect/9", method="GET", follow_redirects=True), "too-many-redirects")
    for code in (301, 302, 303, 307, 308):
        sent = json.loads(ask(f"/redirect-to?{code}&/echo", method="POST", body="again", follow_redirects=True)["body"])
        assert (sent["method"], sent["body"]) == ("POST", "" if code == 303 else "again"), (code, sent)


@case()
def credentials_do_not_follow_to_another_place(lab):
    other = lab.url("/echo", "localhost")
    headers = [["Authorization", "a"], ["Cookie", "b"], ["X-Kept", "c"]]
    ask = lambda path: json.loads(lab.request(id="1", method="GET", uri=lab.url(path), headers=headers, follow_redirects=True)["body"])
    names = lambda sent: {name for name, _ in sent["headers"]}
    assert {"Authorization", "Cookie", "X-Kept"} <= names(ask("/redirect-to?302&/echo"))
    sent = names(ask(f"/redirect-to?302&{other}"))
    assert "X-Kept" in sent and not sent & {"Authorization", "Cookie"}, sent


@case()
def a_connection_elsewhere_keeps_the_host(lab):
    reply = lab.request(id="1", method="GET", uri="http://example.com/echo", connect_host="127.0.0.1", connect_port=lab.backend.port)
    sent = json.loads(reply["body"])
    assert ["Host", "example.com"] in sent["headers"], sent


@case("deny=127.*")
def denied_addresses_are_refused_unless_the_packet_may_skip_the_policy(lab):
    ask = lambda **fields: lab.request(id="1", method="GET", **fields)
    condition(ask(uri=lab.url("/echo")), "policy-violation")
    condition(ask(uri=lab.url("/echo", "localhost")), "policy-violation")
    condition(ask(uri="http://example.com/", connect_host="127.0.0.1", connect_port=lab.backend.port), "policy-violation")
    condition(ask(uri=lab.url("/echo", "0x7f.1")), "policy-violation")
    assert ask(uri=lab.url("/echo"), ignore_policies=True)["code"] == 200


@case("defpolicy=deny\nallow=127.0.0.1")
def only_the_allowed_is_called_where_deny_is_the_default(lab):
    assert lab.request(id="1", method="GET", uri=lab.url("/echo"))["code"] == 200
    condition(lab.request(id="1", method="GET", uri=lab.url("/echo", "localhost")), "policy-violation")


@case()
def a_stream_is_acknowledged_and_keeps_to_its_credits(lab):
    client = lab.client()
    client.start(id="a", method="GET", uri=lab.url("/size/25"), stream=True, credits=10, user_data="mine", ext={"multi": True})
    ack = client.receive()
    assert ack["type"] == b"keep-alive" and ack["from"] == b"zurltest" and ack["seq"] == 0, ack
    assert ack["ext"] == {"multi": True} and ack["user-data"] == b"mine", ack
    received, seq, packets = b"", 1, []
    while True:
        packet = client.receive()
        packets.append(packet)
        received += packet.get("body", b"")
        assert packet["user-data"] == b"mine", packet
        if not packet.get("more"):
            break
        assert len(received) <= 10 * seq, packets
        if len(received) == 10 * seq:
            client.quiet(0.1)
            client.more("a", seq, type="credit", credits=10)
            seq += 1
    assert received == b"0123456789012345678901234", packets
    assert [packet["seq"] for packet in packets] == list(range(1, len(packets) + 1)), packets
    assert packets[0]["code"] == 200 and all("code" not in packet for packet in packets[1:]), packets
    client.more("a", seq, type="keep-alive")
    assert client.receive() == {"id": b"a", "type": b"cancel"}


@case()
def a_response_that_is_not_streamed_comes_whole_whatever_the_credits(lab):
    client = lab.client()
    client.start(id="a", method="GET", uri=lab.url("/size/100000"))
    assert client.receive()["type"] == b"keep-alive"
    packet = client.receive()
    assert packet["code"] == 200 and len(packet["body"]) == 100000 and "more" not in packet, packet


@case()
def an_upload_is_granted_and_given_back(lab):
    client = lab.client()
    client.start(id="a", method="POST", uri=lab.url("/echo"), body="12", more=True, stream=True, credits=100000)
    ack = client.receive()
    assert ack["type"] == b"credit" and ack["credits"] in (199998, 200000), ack
    granted, sent, seq = ack["credits"], 0, 1
    for number in range(30):
        while sent + 20000 > granted:
            packet = client.receive()
            assert packet["type"] == b"credit", packet
            granted += packet["credits"]
        client.more("a", seq, body=b"x" * 20000, more=number < 29)
        sent, seq = sent + 20000, seq + 1
    packets = body(lab, client, "a", seq)
    echoed = json.loads(b"".join(packet.get("body", b"") for packet in packets))
    assert len(echoed["body"]) == 600002, len(echoed["body"])
    assert ["Transfer-Encoding", "chunked"] in echoed["headers"], echoed["headers"]


@case()
def the_length_of_an_upload_may_be_given(lab):
    client = lab.client()
    headers = [["Content-Length", "6"]]
    client.start(id="a", method="POST", uri=lab.url("/echo"), body="123", more=True, headers=headers)
    assert client.receive()["type"] == b"credit"
    client.more("a", 1, body="456")
    echoed = json.loads(body(lab, client, "a", 2)[0]["body"])
    assert echoed["body"] == "123456" and ["Content-Length", "6"] in echoed["headers"], echoed


@case()
def packets_out_of_order_are_cancelled(lab):
    for seq in (2, 0, None):
        client = lab.client()
        client.start(id="a", method="GET", uri=lab.url("/hang"), stream=True)
        client.receive()
        packet = {"from": client.address, "id": "a", "type": "keep-alive"}
        client.send(packet if seq is None else {**packet, "seq": seq})
        cancel = client.receive()
        assert cancel["type"] == b"cancel" and cancel["from"] == b"zurltest" and cancel["seq"] == 1, cancel


@case()
def a_first_packet_with_followers_is_number_0(lab):
    client = lab.client()
    client.start(id="a", seq=1, method="POST", uri=lab.url("/echo"), more=True)
    condition(client.receive(), "bad-request")


@case()
def data_after_the_end_of_a_body_is_refused(lab):
    client = lab.client()
    client.start(id="a", method="GET", uri=lab.url("/hang"))
    client.receive()
    client.more("a", 1, body="x")
    condition(client.receive(), "bad-request")


@case()
def a_cancel_ends_the_call(lab):
    client = lab.client()
    # A path of its own, as the connections of earlier cases may still be closing.
    client.start(id="a", method="GET", uri=lab.url("/hang/cancelled"), stream=True)
    client.receive()
    wait_for(lambda: any(request.get("path") == "/hang/cancelled" for request in lab.backend.requests))
    client.more("a", 1, type="cancel")
    wait_for(lambda: "cancelled" in lab.backend.lost, "the connection to be closed")
    client.quiet(0.1)


@case()
def unknown_exchanges_are_cancelled_each(lab):
    client = lab.client()
    client.more("ghost", 5, type="credit", credits=1)
    assert client.receive() == {"id": b"ghost", "type": b"cancel"}
    client.send({"from": client.address, "id": [{"id": "g1", "seq": 1}, {"id": "g2", "seq": 1}], "type": "keep-alive"})
    assert [client.receive()["id"] for _ in range(2)] == [b"g1", b"g2"]
    client.more("ghost", 5, type="cancel")
    client.more("ghost", 5, type="error", condition="bad-request")
    client.quiet()


@case()
def lists_of_ids_reach_every_exchange(lab):
    client = lab.client()
    for id in ("a", "b"):
        client.start(id=id, method="GET", uri=lab.url("/size/5"), stream=True, credits=1, ext={"multi": True})
    received = {b"a": b"", b"b": b""}
    while any(len(text) < 1 for text in received.values()):
        packet = client.receive()
        received[packet["id"]] += packet.get("body", b"")
    client.send({"from": client.address, "id": [{"id": "a", "seq": 1}, {"id": "b", "seq": 1}], "type": "credit", "credits": 4})
    while any(len(text) < 5 for text in received.values()):
        packet = client.receive()
        received[packet["id"]] += packet.get("body", b"")
    assert received == {b"a": b"01234", b"b": b"01234"}, received


@case()
def a_field_of_the_wrong_type_is_answered(lab):
    client = lab.client()
    client.push.send(b"T" + encode({"from": client.address, "id": "a", "method": 5, "uri": "http://a/"}))
    assert client.receive() == {"id": b"a", "type": b"error", "condition": b"bad-request"}


@case()
def fire_and_forget_sends_and_says_nothing(lab):
    client = lab.client()
    before = len(lab.backend.requests)
    for fields in ({}, {"from": client.address}):
        packet = {**fields, "method": "POST", "uri": lab.url("/echo"), "body": "fired", "ext": {"quiet": True}}
        client.push.send(b"T" + encode(packet))
    wait_for(lambda: len(lab.backend.requests) >= before + 2)
    assert {request["body"] for request in lab.backend.requests[before:]} == {"fired"}
    client.quiet()


@case()
def a_monitor_hears_of_calls_that_others_made(lab):
    monitor = lab.client()
    other = lab.client()
    other.push.send(b"T" + encode({"from": monitor.address, "id": "hook", "method": "POST", "uri": lab.url("/status/500"), "body": "x"}))
    assert monitor.receive()["type"] == b"keep-alive"
    assert monitor.receive()["code"] == 500


@case(waft=True)
def early_responses_end_the_exchange(lab):
    client = lab.client()
    client.start(id="a", method="POST", uri=lab.url("/early"), body="12", more=True, stream=True, credits=1000)
    packets = []
    while not packets or packets[-1].get("more"):
        packet = client.receive()
        if "type" not in packet:
            packets.append(packet)
    assert packets[0]["code"] == 200 and b"".join(packet.get("body", b"") for packet in packets) == b"early", packets


@case()
def an_open_exchange_is_not_disturbed_by_a_second_start(lab):
    client = lab.client()
    client.start(id="a", method="GET", uri=lab.url("/size/5"), stream=True)
    client.receive()
    client.start(id="a", method="GET", uri=lab.url("/status/500"), stream=True, credits=1)
    client.more("a", 1, type="credit", credits=5)
    packets = [packet for packet in body(lab, client, "a", 2) if packet.get("code") or packet.get("body")]
    assert packets[0]["code"] == 200 and b"".join(packet.get("body", b"") for packet in packets) == b"01234", packets


@case("max_open_requests=1")
def requests_beyond_the_bound_wait_for_their_turn(lab):
    client = lab.client()
    client.start(id="a", method="GET", uri=lab.url("/hang"), timeout=500)
    client.receive()
    client.start(id="b", method="GET", uri=lab.url("/size/1"))
    condition(client.receive(), "session-timeout")
    assert client.receive()["id"] == b"b"
    assert client.receive()["code"] == 200


PACKAGE = "/etc/zurl.conf"
# What the package of Debian sets, where it is not there.
OPTIONS = """[General]
instance_id=
in_spec=ipc:///var/run/zurl/zurl-in
in_stream_spec=ipc:///var/run/zurl/zurl-in-stream
out_spec=ipc:///var/run/zurl/zurl-out
in_req_spec=ipc:///var/run/zurl/zurl-req
ipc_file_mode=660
defpolicy=allow
allow=
deny=127.*,10.*,192.168.*,*.local
max_open_requests=2000
buffer_size=200000
timeout=600
in_hwm=1000
out_hwm=1000
"""


@case()
def the_file_of_the_package_starts_the_daemon(lab):
    text = open(PACKAGE, encoding="utf-8").read() if os.path.exists(PACKAGE) else OPTIONS
    daemon = Daemon(lab.binary, text, as_is=True)
    outer, lab.daemon = lab.daemon, daemon
    try:
        condition(lab.request(id="1", method="GET", uri=lab.url("/size/1")), "policy-violation")
        assert lab.request(id="1", method="GET", uri=lab.url("/size/1"), ignore_policies=True)["code"] == 200
        assert os.stat(f"{daemon.path}/zurl-req").st_mode & 0o777 == 0o660
        assert "[ERR]" not in daemon.log() and "has no effect" not in daemon.log(), daemon.log()
    finally:
        lab.daemon = outer
        daemon.stop()
