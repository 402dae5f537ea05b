"""Plays one part of an HTTP/2 client, by the library h2, and prints what it sees."""

import os
import socket
import sys

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings


class Client:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.authority = address
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False)
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.flush()
        self.pending = []

    def flush(self):
        self.socket.sendall(self.connection.data_to_send())

    def request(self, method, path, fields=(), ended=True):
        stream = self.connection.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", self.authority), (":path", path), *fields]
        self.connection.send_headers(stream, head, end_stream=ended)
        self.flush()
        return stream

    def event(self):
        """The next thing that happened; none when the server has closed."""
        while not self.pending:
            data = self.socket.recv(65536)
            if not data:
                return None
            self.pending = self.connection.receive_data(data)
            self.flush()
        return self.pending.pop(0)

    def take(self, event):
        """The data of an event, acknowledged."""
        self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return event.data


def show(text):
    print(text, flush=True)


def status_of(event):
    return dict(event.headers)[":status"]


def get(client, *paths):
    """Asks for all paths at once and prints each answer when it is whole."""
    paths = {client.request("GET", path): path for path in paths}
    statuses, bodies, left = {}, {stream: b"" for stream in paths}, set(paths)
    while left and (event := client.event()):
        if isinstance(event, h2.events.ResponseReceived):
            statuses[event.stream_id] = status_of(event)
        elif isinstance(event, h2.events.DataReceived):
            bodies[event.stream_id] = bodies.get(event.stream_id, b"") + client.take(event)
        elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)) and event.stream_id in left:
            stream = event.stream_id
            left.discard(stream)
            kind = type(event).__name__
            show(f"{paths[stream]} {statuses.get(stream)} {bodies[stream].decode()!r} {kind}")


def stream(client, path, *fields):
    """Prints what a held answer brings, as it comes."""
    client.request("GET", path, [tuple(field.split(":", 1)) for field in fields])
    while event := client.event():
        if isinstance(event, h2.events.ResponseReceived):
            show(f"status {status_of(event)}")
        elif isinstance(event, h2.events.DataReceived):
            show(f"data {client.take(event).decode()!r}")
        elif isinstance(event, h2.events.StreamEnded):
            return show("ended")
        elif isinstance(event, h2.events.StreamReset):
            return show(f"reset {event.error_code}")
        elif isinstance(event, h2.events.ConnectionTerminated):
            show(f"goodbye {event.error_code}")


def leave(client, path):
    """Takes the head of a held answer and breaks its stream off; the connection stays in use."""
    held = client.request("GET", path)
    while not isinstance(client.event(), h2.events.ResponseReceived):
        pass
    client.connection.reset_stream(held, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    get(client, "/after")


def upload(client, path, size):
    """Sends a body as the server's windows allow, without a length, and prints what comes back of it."""
    rest = b"x" * int(size)
    sent = client.request("POST", path, ended=False)
    got = 0
    while True:
        room = min(client.connection.local_flow_control_window(sent), client.connection.max_outbound_frame_size)
        if rest and room:
            piece, rest = rest[:room], rest[room:]
            client.connection.send_data(sent, piece, end_stream=not rest)
            client.flush()
            continue
        event = client.event()
        if isinstance(event, h2.events.ResponseReceived):
            show(f"status {status_of(event)}")
        elif isinstance(event, h2.events.DataReceived):
            got += len(client.take(event))
        elif isinstance(event, h2.events.StreamEnded):
            return show(f"got {got}")
        elif event is None or isinstance(event, h2.events.StreamReset):
            return show("broken off")


def frame(opcode, payload):
    mask = os.urandom(4)
    assert len(payload) < 126
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked


def websocket(client, path, *texts):
    """A WebSocket by extended CONNECT: sends texts and prints the frames that come."""
    while not isinstance(client.event(), h2.events.RemoteSettingsChanged):
        pass
    allowed = client.connection.remote_settings.enable_connect_protocol
    show(f"allowed {allowed}")
    fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
    tunnel = client.request("CONNECT", path, fields, ended=False)
    came, texts = b"", list(texts)
    while event := client.event():
        if isinstance(event, h2.events.ResponseReceived):
            show(f"status {status_of(event)}")
            for text in texts:
                client.connection.send_data(tunnel, frame(1, text.encode()))
            client.flush()
        elif isinstance(event, h2.events.DataReceived):
            came += client.take(event)
            while len(came) >= 2 and len(came) >= 2 + came[1]:
                opcode, payload, came = came[0] & 15, came[2 : 2 + came[1]], came[2 + came[1] :]
                show(f"frame {opcode} {payload!r}")
                if opcode == 8:
                    try:
                        client.connection.send_data(tunnel, frame(8, payload), end_stream=True)
                        client.flush()
                    except h2.exceptions.StreamClosedError:
                        # The server has not waited for it.
                        pass
        elif isinstance(event, h2.events.StreamEnded):
            return show("ended")
        elif isinstance(event, h2.events.StreamReset):
            return show(f"reset {event.error_code}")


def rapid_reset(client, path, count):
    """Opens streams and resets them at once, as an attacker would; prints how the server takes it."""
    try:
        for _ in range(int(count)):
            doomed = client.request("GET", path)
            client.connection.reset_stream(doomed, h2.errors.ErrorCodes.CANCEL)
        client.flush()
        while event := client.event():
            if isinstance(event, h2.events.ConnectionTerminated):
                return show(f"goodbye {event.error_code!r}")
    except (OSError, h2.exceptions.ProtocolError) as error:
        return show(f"closed {type(error).__name__}")
    show("closed")


def stall(client, path):
    """Takes the head of an answer, and then nothing of its body: the window is never opened again."""
    client.request("GET", path)
    while event := client.event():
        if isinstance(event, h2.events.ResponseReceived):
            show(f"status {status_of(event)}")
        elif isinstance(event, h2.events.StreamReset):
            return show("reset")
        elif isinstance(event, h2.events.StreamEnded):
            return show("ended")


PARTS = {part.__name__: part for part in (get, stream, leave, upload, websocket, rapid_reset, stall)}

if __name__ == "__main__":
    PARTS[sys.argv[2]](Client(sys.argv[1]), *sys.argv[3:])
