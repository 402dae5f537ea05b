"""WebSockets."""

from harness import case, condition


def open_socket(lab, client, path="/ws", credits=100000, **fields):
    client.start(id=client.address, uri=lab.ws_url(path), credits=credits, **fields)
    opened = client.receive()
    assert opened.get("code") == 101 and opened["seq"] == 0 and opened["from"] == b"zurltest", opened
    assert opened["credits"] == 200000, opened
    return opened


def event(client):
    """The next packet that is more than credits."""
    while True:
        packet = client.receive()
        if packet.get("type") not in (b"credit", b"keep-alive"):
            return packet


@case()
def frames_go_both_ways(lab):
    client = lab.client()
    opened = open_socket(lab, client, headers=[["Sec-WebSocket-Protocol", "chat, other"]])
    assert [b"Sec-WebSocket-Protocol", b"chat"] in opened["headers"], opened
    client.more(client.address, 1, body="hello", content_type="text")
    packet = event(client)
    assert packet["body"] == b"hello" and packet.get("content-type", b"text") == b"text" and "more" not in packet, packet
    client.more(client.address, 2, body=b"\x00\xff", content_type="binary")
    packet = event(client)
    assert packet["body"] == b"\x00\xff" and packet["content-type"] == b"binary", packet
    client.more(client.address, 3, type="close", code=4001, body="bye")
    packet = event(client)
    assert (packet["type"], packet["code"]) == (b"close", 4001), packet


@case()
def what_was_written_is_given_back(lab):
    client = lab.client()
    open_socket(lab, client)
    client.more(client.address, 1, body="x" * 1000)
    granted = 0
    while granted < 1000:
        packet = client.receive()
        granted += packet.get("credits", 0)
    assert granted == 1000, granted


@case()
def fragments_and_controls_between_them_are_carried(lab):
    client = lab.client()
    open_socket(lab, client, "/ws-fragments")
    text, kinds = b"", []
    while True:
        packet = event(client)
        kinds.append(packet.get("type", b"data"))
        if packet.get("type") is None:
            text += packet.get("body", b"")
            if not packet.get("more"):
                break
    assert text == b"one two" and b"ping" in kinds, (text, kinds)


@case()
def an_ordinary_answer_is_a_rejection(lab):
    client = lab.client()
    client.start(id=client.address, uri=lab.ws_url("/status/403"), credits=100)
    packet = client.receive()
    condition(packet, "rejected")
    assert packet["code"] == 403 and packet["body"] == b"body", packet


@case()
def the_first_packet_of_a_websocket_is_number_0(lab):
    client = lab.client()
    client.start(id=client.address, seq=3, uri=lab.ws_url("/ws"), credits=100)
    condition(client.receive(), "bad-request")


@case()
def frames_beyond_the_buffer_are_refused(lab):
    client = lab.client()
    client.start(id=client.address, uri=lab.ws_url("/ws-large"), credits=400000)
    assert client.receive()["code"] == 101
    condition(event(client), "frame-too-large")


@case()
def a_connection_that_is_lost_is_an_error(lab):
    client = lab.client()
    client.start(id=client.address, uri=lab.ws_url("/ws-drop"), credits=100)
    assert client.receive()["code"] == 101
    condition(event(client), "undefined-condition")


@case()
def redirects_of_websockets_are_followed_when_asked(lab):
    client = lab.client()
    open_socket(lab, client, f"/ws-redirect?127.0.0.1:{lab.backend.port}/ws", follow_redirects=True)


@case("deny=127.*")
def denied_websockets_are_refused(lab):
    client = lab.client()
    for number, host in enumerate(["127.0.0.1", "localhost", "0x7f.1"]):
        client.start(id=f"{client.address}-{number}", uri=lab.ws_url("/ws", host), credits=100)
        condition(client.receive(), "policy-violation")


@case(waft=True)
def bodies_of_pings_and_pongs_are_kept(lab):
    client = lab.client()
    open_socket(lab, client)
    client.more(client.address, 1, type="ping", body="x")
    packet = event(client)
    assert (packet["type"], packet["body"]) == (b"pong", b"x"), packet


@case(waft=True)
def messages_are_split_to_the_credits_and_the_close_comes_last(lab):
    client = lab.client()
    open_socket(lab, client, "/ws-burst", credits=2000)
    seq, received = 1, 0
    while received < 5000:
        packet = event(client)
        assert "type" not in packet and len(packet["body"]) <= 2000, packet
        received += len(packet["body"])
        assert bool(packet.get("more")) == (received < 5000), packet
        client.more(client.address, seq, type="credit", credits=len(packet["body"]))
        seq += 1
    packet = event(client)
    assert (packet["type"], packet["code"], packet["body"]) == (b"close", 1000, b"done"), packet
