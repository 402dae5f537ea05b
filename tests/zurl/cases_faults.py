"""What is wrong with Zurl and closed here, and clients that mean harm."""

import os
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

from backend import Backend
from harness import case, condition, encode, wait_for


@case("deny=localhost", waft=True)
def a_redirect_to_a_denied_name_is_not_followed(lab):
    target = lab.url("/echo", "localhost")
    uri = lab.url(f"/redirect-to?302&{target}")
    condition(lab.request(id="1", method="GET", uri=uri, follow_redirects=True), "policy-violation")
    client = lab.client()
    client.start(id=client.address, uri=lab.ws_url(f"/ws-redirect?localhost:{lab.backend.port}/ws"), credits=100, follow_redirects=True)
    condition(client.receive(), "policy-violation")


@case("deny=127.*", waft=True)
def a_connection_made_without_policy_serves_no_call_with_one(lab):
    uri = lab.url("/size/1", "localhost")
    assert lab.request(id="1", method="GET", uri=uri, ignore_policies=True)["code"] == 200
    condition(lab.request(id="2", method="GET", uri=uri), "policy-violation")


@case("deny=127.*", waft=True)
def the_unspecified_address_is_loopback(lab):
    for host in ("0.0.0.0", "0", "0x0"):
        condition(lab.request(id="1", method="GET", uri=lab.url("/echo", host)), "policy-violation")


@case(waft=True)
def a_redirect_to_another_scheme_is_not_followed(lab):
    for target in ("ftp://127.0.0.1/", "file:///etc/passwd", "ws://127.0.0.1/", "gopher://127.0.0.1:6379/_x"):
        uri = lab.url(f"/redirect-to?302&{target}")
        condition(lab.request(id="1", method="GET", uri=uri, follow_redirects=True), "policy-violation")


@case("deny=localhost,*.local", waft=True)
def a_trailing_dot_evades_no_pattern(lab):
    for host in ("localhost.", "LOCALHOST", "printer.local."):
        condition(lab.request(id="1", method="GET", uri=lab.url("/echo", host)), "policy-violation")


@case("deny=127.*\nallow_ipv6=true", waft=True)
def addresses_inside_ipv6_addresses_are_judged(lab):
    for host in ("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "[::127.0.0.1]", "[::]"):
        condition(lab.request(id="1", method="GET", uri=lab.url("/echo", host)), "policy-violation")


@case(waft=True)
def certificates_are_verified_to_their_root(lab):
    with tempfile.TemporaryDirectory() as folder:
        certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{folder}/cert", f"{folder}/key")
        backend = Backend(wrap=lambda connection: context.wrap_socket(connection, server_side=True))
        uri = f"https://localhost:{backend.port}/size/3"
        condition(lab.request(id="1", method="GET", uri=uri), "tls-error")
        assert lab.request(id="1", method="GET", uri=uri, ignore_tls_errors=True)["body"] == b"012"
        condition(lab.request(id="1", method="GET", uri=uri), "tls-error")
        condition(lab.request(id="1", method="GET", uri=f"https://127.0.0.1:{lab.backend.port}/"), "tls-error")


@case(waft=True)
def http2_is_spoken_where_it_is_offered(lab):
    with tempfile.TemporaryDirectory() as folder:
        certificate(folder)
        with open(f"{folder}/app.py", "w", encoding="utf-8") as file:
            file.write(HTTP2_APP)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "hypercorn", "app:app", "--bind", f"127.0.0.1:{port}", "--certfile", "cert", "--keyfile", "key", "--log-level", "CRITICAL"]
        server = subprocess.Popen(command, cwd=folder)
        try:
            ask = lambda **fields: lab.request(id="1", uri=f"https://localhost:{port}/a?b=c", ignore_tls_errors=True, **fields)
            wait_for(lambda: ask(method="GET").get("code") == 200, "the server")
            reply = ask(method="POST", body="x" * 300_000, headers=[["X-Up", "y"], ["Connection", "z"]])
            assert reply["body"] == b"2 POST /a b=c 300000 y", reply["body"]
            assert len(ask(method="GET", headers=[["X-Size", "3000000"]])["body"]) == 3_000_000
            client = lab.client()
            client.start(id="a", method="GET", uri=f"https://localhost:{port}/", ignore_tls_errors=True, stream=True, credits=1000, headers=[["X-Size", "2500"]])
            size, seq, packet = 0, 1, {"more": True}
            while packet.get("more") or packet.get("type"):
                packet = client.receive()
                size += len(packet.get("body", b""))
                assert size <= 1000 * seq, packet
                if size == 1000 * seq:
                    client.more("a", seq, type="credit", credits=1000)
                    seq += 1
            assert size == 2500, size
        finally:
            server.terminate()
            server.wait()


HTTP2_APP = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        event = await receive()
        size, more = size + len(event.get("body", b"")), event.get("more_body", False)
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    text = f"{scope['http_version']} {scope['method']} {scope['path']} {scope['query_string'].decode()} {size} {headers.get('x-up', '')}"
    body = b"x" * int(headers["x-size"]) if "x-size" in headers else text.encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})
"""


def certificate(folder):
    """A certificate for localhost that nobody trusts."""
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {folder}/key -out {folder}/cert -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run(command.split(), check=True, capture_output=True)


@case(waft=True)
def first_packets_that_fail_early_do_no_harm(lab):
    client = lab.client()
    for packet in ({}, {"method": "GET"}, {"method": "GET", "uri": "nonsense"}, {"method": "GET", "uri": "ftp://a/"}, {"uri": lab.ws_url("/ws")}, {"method": "GET", "uri": "http://"}):
        client.push.send(b"T" + encode(packet))
    client.start(id="a", method="GET", uri=lab.url("/size/1"))
    assert client.receive()["type"] == b"keep-alive"


@case("no in_spec\nno in_stream_spec\nno out_spec", waft=True)
def a_reply_goes_back_even_if_a_from_is_given(lab):
    reply = lab.request(**{"id": "1", "from": "x", "method": "GET", "uri": lab.url("/size/1")})
    assert reply["code"] == 200 and "from" not in reply, reply


@case(waft=True)
def line_ends_split_no_request(lab):
    good = {"id": "1", "method": "GET", "uri": lab.url("/echo")}
    condition(lab.request(**{**good, "headers": [["X-A", "b\r\nX-Evil: 1"]]}), "bad-request")
    condition(lab.request(**{**good, "headers": [["X-A\r\nX-Evil", "b"]]}), "bad-request")
    condition(lab.request(**{**good, "method": "GET / HTTP/1.1\r\nX: y"}), "bad-request")
    condition(lab.request(**{**good, "uri": lab.url("/echo\r\nX-Evil: 1")}), "bad-request")


@case(waft=True)
def proxies_of_the_environment_are_ignored(lab):
    # The harness sets them to a port where nobody listens.
    assert "127.0.0.1:9" in open(f"/proc/{lab.daemon.process.pid}/environ", encoding="utf-8").read()
    assert lab.request(id="1", method="GET", uri=lab.url("/size/1", "localhost"))["code"] == 200


@case("profile=hardened\nexceptions=127.0.0.1", waft=True)
def the_hardened_profile_calls_what_it_should_and_nothing_else(lab):
    assert lab.request(id="1", method="GET", uri=lab.url("/size/1"))["code"] == 200
    for uri in ("http://127.0.0.2/", "http://localhost/", "http://10.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest", "http://1.1.1.1:22/", "http://user:x@127.0.0.1/", "http://metadata.google.internal/"):
        condition(lab.request(id="1", method="GET", uri=uri, ignore_policies=True), "policy-violation")
    assert "egress-address-refused" in lab.daemon.log() and "egress-port-refused" in lab.daemon.log()


@case("deny=127.0.0.2\nresolver=dns\nname_servers=DNS", waft=True)
def a_name_that_changes_its_mind_leads_nowhere_else(lab):
    inner = Backend(address=("127.0.0.2", lab.backend.port))
    for scheme, ask in (("http", lab.url), ("ws", lab.ws_url)):
        name = f"{scheme}-rebind.test"
        # Public when it is judged, private for whoever asks again.
        lab.names_of.answers[name] = [["127.0.0.1"], ["127.0.0.2"]]
        client = lab.client()
        path = "/ws" if scheme == "ws" else "/hang"
        client.start(id="a", method="GET", uri=ask(path, name), credits=1000, stream=True)
        first = client.receive()
        if scheme == "ws":
            assert first["code"] == 101, first
        else:
            assert first["type"] == b"keep-alive", first
            wait_for(lambda: any(request.get("path") == "/hang" for request in lab.backend.requests), "the call")
        client.more("a", 1, type="cancel")
        # Once the answer has lived long enough the name is asked again, and is refused.
        def is_refused():
            other = lab.client()
            # Without a connection that is kept.
            other.start(id="b", method="GET", uri=ask("/ws" if scheme == "ws" else "/until-close", name))
            packet = other.receive()
            while packet.get("type") == b"keep-alive":
                packet = other.receive()
            return packet.get("condition") == b"policy-violation"
        wait_for(is_refused, "the refusal")
        assert lab.names_of.asked.count(name) == 2, lab.names_of.asked
    assert inner.connections == 0
    log = lab.daemon.log()
    line = next(line for line in log.split("\n") if "egress-address-refused" in line)
    assert "who=client" in line and "rebind.test" in line and "address=127.0.0.2" in line, line


@case("deny=127.0.0.2\nresolver=dns\nname_servers=DNS", waft=True)
def denied_addresses_of_a_name_are_left_out(lab):
    inner = Backend(address=("127.0.0.2", 0))
    lab.names_of.answers["both.test"] = [["127.0.0.2", "127.0.0.1"]]
    assert lab.request(id="1", method="GET", uri=lab.url("/size/1", "both.test"))["code"] == 200
    lab.names_of.answers["inner.test"] = [["127.0.0.2"]]
    condition(lab.request(id="1", method="GET", uri=f"http://inner.test:{inner.port}/"), "policy-violation")
    condition(lab.request(id="1", method="GET", uri=f"http://nowhere.test:{inner.port}/"), "remote-connection-failed")
    assert inner.connections == 0


@case("deny=127.0.0.2\nresolver=dns\nname_servers=DNS", waft=True)
def a_redirect_to_a_private_address_is_not_followed(lab):
    inner = Backend(address=("127.0.0.2", 0))
    lab.names_of.answers["aside.test"] = [["127.0.0.2"]]
    for host in ("127.0.0.2", "aside.test", "[::ffff:127.0.0.2]", "0x7f000002"):
        uri = lab.url(f"/redirect-to?302&http://{host}:{inner.port}/secret")
        condition(lab.request(id="1", method="GET", uri=uri, follow_redirects=True), "policy-violation")
        client = lab.client()
        client.start(id=client.address, uri=lab.ws_url(f"/ws-redirect?{host}:{inner.port}/ws"), credits=100, follow_redirects=True)
        condition(client.receive(), "policy-violation")
        client.start(id="direct", uri=f"ws://{host}:{inner.port}/ws", credits=100)
        condition(client.receive(), "policy-violation")
    assert inner.connections == 0


@case("metrics_listen=METRICS\ndeny=127.0.0.2", waft=True)
def the_daemon_can_be_watched(lab):
    def metrics():
        with urllib.request.urlopen(f"http://127.0.0.1:{lab.metrics_port}/metrics", timeout=10) as page:
            assert page.headers["Content-Type"].startswith("text/plain; version=0.0.4"), page.headers
            rows = (line.rsplit(" ", 1) for line in page.read().decode().split("\n") if line and line[0] != "#")
            return {name: int(value) for name, value in rows}

    before = metrics()
    for _ in range(3):
        assert lab.request(id="1", method="GET", uri=lab.url("/size/1"))["code"] == 200
    condition(lab.request(id="1", method="GET", uri="http://127.0.0.2/"), "policy-violation")
    lab.request(raw=b"Tnonsense")
    after = metrics()
    grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    expected = {
        "waft_egress_begun_total": 4,
        "waft_egress_failed_total": 1,
        "waft_egress_malformed_total": 1,
        "waft_outbound_calls_total": 3,
        "waft_outbound_connections_total": 1,
        "waft_outbound_reuses_total": 2,
        "waft_outbound_idle": 1,
        'waft_outbound_denials_total{rule="egress-address-refused"}': 1,
    }
    assert grown == expected, grown
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{lab.metrics_port}/secret", timeout=10)
        raise AssertionError("there is nothing else")
    except urllib.error.HTTPError as error:
        assert error.code == 404


@case(waft=True)
def fire_and_forget_goes_on_without_a_word_of_its_client(lab):
    # The daemon is told by its clock, which a case cannot move: what shows is that no deadline of 60 s is set.
    client = lab.client()
    for packet in ({"method": "GET"}, {"method": "GET", "from": client.address, "id": "watched"}):
        client.push.send(b"T" + encode({**packet, "uri": lab.url("/head-then-wait")}))
    wait_for(lambda: sum(request.get("path") == "/head-then-wait" for request in lab.backend.requests) >= 2, "the calls")
    lab.backend.release.set()
    packets = [client.receive()]
    while "code" not in packets[-1]:
        packets.append(client.receive())
    assert packets[-1]["body"] == b"done", packets


@case("profile=hardened\npolicy_mode=report-only", waft=True)
def a_policy_can_be_tried_out(lab):
    assert lab.request(id="1", method="GET", uri=lab.url("/size/1"))["code"] == 200
    assert "enforced=false" in lab.daemon.log()


@case(waft=True)
def two_clients_may_use_the_same_id(lab):
    one, two = lab.client(), lab.client()
    one.start(id="same", method="GET", uri=lab.url("/size/3"), stream=True)
    two.start(id="same", method="GET", uri=lab.url("/size/4"), stream=True)
    for client in (one, two):
        assert client.receive()["type"] == b"keep-alive"
    two.more("same", 1, type="cancel")
    one.more("same", 1, type="credit", credits=3)
    packets = [one.receive()]
    while packets[-1].get("more"):
        packets.append(one.receive())
    assert b"".join(packet.get("body", b"") for packet in packets) == b"012", packets


@case(waft=True)
def a_server_that_does_not_prove_the_key_is_no_websocket(lab):
    client = lab.client()
    client.start(id=client.address, uri=lab.ws_url("/ws-bad-accept"), credits=100)
    condition(client.receive(), "undefined-condition")


@case("collected_size_max=1000", waft=True)
def collected_responses_are_bounded_without_a_max_size(lab):
    assert lab.request(id="1", method="GET", uri=lab.url("/size/1000"))["code"] == 200
    condition(lab.request(id="1", method="GET", uri=lab.url("/size/1001")), "max-size-exceeded")


@case(waft=True)
def a_compressed_bomb_is_stopped(lab):
    condition(lab.request(id="1", method="GET", uri=lab.url("/bomb")), "undefined-condition")
    client = lab.client()
    client.start(id="a", method="GET", uri=lab.url("/bomb"), stream=True, credits=1_000_000_000)
    size = 0
    while True:
        packet = client.receive()
        size += len(packet.get("body", b""))
        if packet.get("type") == b"error":
            break
    assert size < 5_000_000, size


@case(waft=True)
def heads_need_no_credits(lab):
    client = lab.client()
    client.start(id="a", method="GET", uri=lab.url("/size/5"), stream=True)
    assert client.receive()["type"] == b"keep-alive"
    head = client.receive()
    assert head["code"] == 200 and head["more"] is True and "body" not in head, head
    client.start(id="b", method="GET", uri=lab.url("/size/0"), stream=True)
    assert client.receive()["type"] == b"keep-alive"
    assert client.receive()["code"] == 200


@case(waft=True)
def unreadable_requests_are_answered_so_that_nobody_hangs(lab):
    for raw in (b"", b"X", b"Tgarbage", b"J[]", b"T" + encode(["x"]), b"J" + b"[" * 10000):
        condition(lab.request(raw=raw), "bad-request")


@case(waft=True)
def messages_that_are_no_packets_do_no_harm(lab):
    client = lab.client()
    for payload in (b"", b"T", b"T9999999999:", b"T1:", b"J{", b"Q", os.urandom(500), b"T" + encode({"id": [], "from": client.address})):
        client.push.send(payload)
        client.router.send_multipart([b"zurltest", b"", payload])
        client.push.send_multipart([payload, payload])
        client.router.send_multipart([b"zurltest", payload, payload, payload])
    client.start(id="a", method="GET", uri=lab.url("/size/1"))
    while client.receive().get("code") != 200:
        pass


@case(waft=True)
def a_client_that_grants_no_credits_delays_nobody(lab):
    greedy, other = lab.client(), lab.client()
    for number in range(200):
        greedy.start(id=f"g{number}", method="GET", uri=lab.url("/size/100000"), stream=True, credits=1)
    for number in range(20):
        other.start(id=f"o{number}", method="GET", uri=lab.url("/size/1"))
    codes = 0
    while codes < 20:
        codes += "code" in other.receive()


@case(waft=True)
def a_flood_beyond_the_credits_ends_that_exchange_alone(lab):
    client = lab.client()
    client.start(id="a", method="POST", uri=lab.url("/hang"), more=True, headers=[["Content-Length", "100000000"]])
    client.start(id="b", method="GET", uri=lab.url("/hang"), timeout=60000)
    seen = [client.receive(), client.receive()]
    assert {packet["type"] for packet in seen} == {b"credit", b"keep-alive"}, seen
    for seq in range(1, 2000):
        client.more("a", seq, body=b"x" * 100000, more=True)
        if client.sub.poll(0):
            packet = client.receive()
            if packet["type"] == b"credit":
                continue
            condition(packet, "bad-request")
            break
    else:
        raise AssertionError("the flood was not stopped")
    wait_for(lambda: lab.daemon.alive())
    client.more("b", 1, type="keep-alive")
    while client.sub.poll(300):
        assert client.receive()["id"] == b"a"


@case(waft=True)
def a_flood_of_small_packets_ends_that_exchange_alone(lab):
    client = lab.client()
    client.start(id="a", method="GET", uri=lab.url("/hang"))
    assert client.receive()["type"] == b"keep-alive"
    for seq in range(1, 5000):
        client.more("a", seq, type="ping", body="x" * 1000)
    condition(client.receive(), "bad-request")


@case(waft=True)
def an_exchange_can_be_handed_to_another_client(lab):
    old, new = lab.client(), lab.client()
    old.start(id="h", method="GET", uri=lab.url("/size/5"), stream=True, credits=2)
    received, packets = b"", [old.receive()]
    while len(received) < 2:
        packets.append(old.receive())
        received += packets[-1].get("body", b"")
    old.more("h", 1, type="handoff-start")
    packets.append(old.receive())
    assert packets[-1]["type"] == b"handoff-proceed", packets
    # A stranger who does not know the number cannot take it.
    new.more("h", 9, type="keep-alive")
    assert new.receive() == {"id": b"h", "type": b"cancel"}
    new.more("h", 2, type="credit", credits=3)
    packet = new.receive()
    assert packet["body"] == b"234" and packet["seq"] == packets[-1]["seq"] + 1 and "more" not in packet, packet
    old.quiet(0.1)


SLOW = 5_000
# What is measured is 3 KB in a release build; without optimisation futures are larger.
SLOW_SIZE_MAX = 16_384


@case("instance_id=zurltest\n", waft=True)
def thousands_of_slow_receivers_cost_little_and_delay_nobody(lab):
    held, listener = [], socket.create_server(("127.0.0.1", 0), backlog=4096)

    def hold():
        while True:
            held.append(listener.accept()[0])

    threading.Thread(target=hold, daemon=True).start()
    port = listener.getsockname()[1]
    client = lab.client()
    assert lab.request(id="1", method="GET", uri=lab.url("/size/1"))["code"] == 200
    before = resident(lab.daemon.process.pid)
    for number in range(SLOW):
        client.push.send(b"T" + encode({"method": "POST", "uri": f"http://127.0.0.1:{port}/hook", "body": "x" * 200}))
        if number - len(held) > 1_000:
            wait_for(lambda: number - len(held) < 500, "the receivers")
    wait_for(lambda: len(held) == SLOW, "all receivers", wait=30)
    size = (resident(lab.daemon.process.pid) - before) / SLOW
    assert size < SLOW_SIZE_MAX, f"{size} bytes for a call that waits"
    times = []
    for _ in range(50):
        began = time.monotonic()
        assert lab.request(id="1", method="GET", uri=lab.url("/size/1"))["code"] == 200
        times.append(time.monotonic() - began)
    assert sorted(times)[25] < 0.05, f"{sorted(times)[25]} s for a call meanwhile"
    for connection in held:
        connection.close()
    listener.close()


def resident(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@case(waft=True)
def packets_in_any_order_do_no_harm(lab):
    dice = random.Random(7)
    client = lab.client()
    kinds = ["credit", "keep-alive", "cancel", "error", "close", "ping", "pong", "handoff-start", "handoff-proceed", "what", None]
    paths = ["/size/50000", "/hang", "/chunked", "/drop", "/echo", "/bomb", "/redirect/3"]
    for _ in range(3000):
        packet = {"from": client.address, "id": f"r{dice.randrange(20)}"}
        fields = {
            "seq": dice.choice([0, 1, 2, 3, dice.randrange(1 << 40)]),
            "type": dice.choice(kinds),
            "credits": dice.choice([0, 1, 5000, 1 << 62]),
            "more": dice.random() < 0.5,
            "stream": dice.random() < 0.5,
            "body": bytes(dice.randrange(3000)),
            "code": dice.randrange(6000),
            "follow-redirects": True,
            "id": [{"id": f"r{dice.randrange(20)}", "seq": dice.randrange(4)} for _ in range(3)],
        }
        packet |= {name: value for name, value in fields.items() if value is not None and dice.random() < 0.4}
        if dice.random() < 0.4:
            packet |= {"seq": 0, "method": "POST", "uri": dice.choice([lab.url(dice.choice(paths)), lab.ws_url("/ws")])}
            packet.pop("type", None)
            client.push.send(b"T" + encode(packet))
        else:
            client.send(packet)
        while client.sub.poll(0):
            client.sub.recv()
    other = lab.client()
    other.start(id="after", method="GET", uri=lab.url("/size/1"))
    while other.receive().get("code") != 200:
        pass
