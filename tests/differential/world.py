"""What a scenario acts with on one of the two programs, and the record of all that was seen."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import sys
import time
from pathlib import Path

import zmq
import zmq.asyncio

sys.path.append(str(Path(__file__).parent.parent / "zmq"))
import tnetstring  # noqa: E402

from peers import KEY, WAIT, Client, Reply, WebSocket, header, read_request, shown  # noqa: E402,F401

CONTEXT = zmq.asyncio.Context()
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
SCENARIOS = {}


class Scenario:
    def __init__(self, name, play, config, routes, counted):
        self.name, self.play, self.config, self.routes, self.counted = name, play, config, routes, counted


def scenario(name, route="{target}", config="stock", counted=False, host="{host}", lines=None):
    """Adds a scenario. `route` is what follows the condition of its host; `lines` replaces the whole of its routes.

    `config` names one of the configurations of run.py. A request that the backend gets twice in a row is recorded once,
    as Pushpin asks again a second after a first subscription, unless the scenario is `counted`.
    """

    def add(play):
        section = Path(play.__code__.co_filename).stem
        full = f"{section}: {name}"
        assert full not in SCENARIOS, full
        if lines is not None:
            routes = lines
        elif route.startswith(","):
            routes = [f"{host},id={{key}}{route}"]
        else:
            routes = [f"{host},id={{key}} {route}"]
        SCENARIOS[full] = Scenario(full, play, config, routes, counted)
        return play

    return add


class Statistics:
    """Everything the stats socket of a program told, oldest first."""

    def __init__(self, address):
        self.told, self._changed = [], asyncio.Event()
        self._socket = CONTEXT.socket(zmq.SUB)
        self._socket.subscribe(b"")
        self._socket.connect(address)
        self._task = asyncio.create_task(self._read())

    async def _read(self):
        while True:
            kind, _, rest = (await self._socket.recv()).partition(b" ")
            if rest[:1] == b"J":
                value = json.loads(rest[1:])
            else:
                value = tnetstring.readable(tnetstring.loads(rest[1:]))
            self.told.append((kind.decode(), value))
            self._changed.set()

    async def wait(self, found, wait=WAIT):
        """Waits for a message for which `found` says yes; `None` if there is none."""
        try:
            async with asyncio.timeout(wait):
                while True:
                    if (hit := next((one for one in self.told if found(*one)), None)) is not None:
                        return hit
                    self._changed.clear()
                    await self._changed.wait()
        except asyncio.TimeoutError:
            return None

    def close(self):
        self._task.cancel()
        self._socket.close(0)


class World:
    def __init__(self, side, scenario, key):
        self.program, self.backend, self.stats = side.program, side.backend, side.stats
        self.scenario, self.key, self.host = scenario, key, f"{key}.test"
        self._notes, self._script, self._clients, self._sockets = {}, {}, [], []
        self._requests, self._arrived = 0, asyncio.Event()

    # The backend.

    def on(self, path, *replies):
        """What the backend answers to requests for this path, one after the other; the last counts for all that follow.

        A reply may be a coroutine function of request, reader and writer. `None` stands for all other paths.
        """
        self._script[path] = list(replies)

    def reply(self, *replies):
        self.on(None, *replies)

    async def answer(self, request, reader, writer):
        path = request.path.split("?")[0]
        self._note_request(request)
        replies = self._script.get(path) or self._script.get(None) or [Reply(body="hello\n")]
        reply = replies[0] if len(replies) == 1 else replies.pop(0)
        return await reply(request, reader, writer) if asyncio.iscoroutinefunction(reply) else reply

    def _note_request(self, request):
        block = [f"{request.method} {request.path}"]
        block += [f"  {name}: {value}" for name, value in sorted(request.headers, key=lambda pair: pair[0].lower())]
        if request.body:
            block.append(f"  body: {shown(request.body)}")
        self._notes.setdefault("backend", []).append(block)
        self._requests += 1
        self._arrived.set()

    async def asked(self, count, wait=WAIT):
        """Waits until the backend got this many requests."""
        try:
            async with asyncio.timeout(wait):
                while self._requests < count:
                    self._arrived.clear()
                    await self._arrived.wait()
        except asyncio.TimeoutError:
            self.note("backend", [f"waited in vain for request {count}"])

    # Clients.

    def note(self, who, text):
        self._notes.setdefault(who, []).append(text)

    async def client(self, name="client", kind=Client):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.program.front, limit=1 << 22)
        client = kind(lambda text: self.note(name, text), reader, writer)
        self._clients.append(client)
        return client

    def request(self, line="GET /", headers=(), body="", version="1.1", host=None):
        body = body.encode() if isinstance(body, str) else body
        text = f"{line} HTTP/{version}\r\nHost: {host or self.host}\r\n"
        text += "".join(f"{one}\r\n" for one in headers)
        if body or line.startswith(("POST", "PUT")):
            text += f"Content-Length: {len(body)}\r\n"
        return text.encode("latin-1") + b"\r\n" + body

    async def send(self, line="GET /", headers=(), body="", name="client", **more):
        """Sends a request on a connection of its own."""
        client = await self.client(name)
        await client.send(self.request(line, headers, body, **more))
        return client

    async def fetch(self, line="GET /", headers=(), body="", name="client", **more):
        """Sends a request and reads the whole response."""
        client = await self.send(line, headers, body, name, **more)
        return await client.response(line.startswith("HEAD"))

    async def stream(self, line="GET /", headers=(), name="client", **more):
        return await (await self.send(line, headers, name=name, **more)).stream()

    async def websocket(self, path="/", headers=(), name="client"):
        """Opens a WebSocket; what is not a 101 is read as a response."""
        client = await self.client(name, WebSocket)
        upgrade = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"]
        await client.send(self.request(f"GET {path}", [*upgrade, *headers]))
        client.status = ""
        try:
            async with asyncio.timeout(WAIT):
                headers = await client._head()
                if headers is not None and not client.status.startswith("101"):
                    length = int(header(headers, "Content-Length", "0"))
                    client.note(f"  body: {shown(await client.reader.readexactly(length))}")
        except asyncio.TimeoutError:
            client.note("nothing came")
        return client

    # Publishers and the control side.

    def channel(self, name=""):
        return f"{self.key}{name}"

    async def publish(self, formats, channel=None, quiet=True, **fields):
        """Publishes one item through the HTTP control port."""
        item = {"channel": self.channel() if channel is None else channel, "formats": formats, **fields}
        await self.publish_items([item], quiet)

    async def publish_items(self, items, quiet=True):
        await self.control("POST /publish/", body=json.dumps({"items": items}), quiet=quiet)

    async def control(self, line, headers=(), body="", name="publisher", quiet=False, raw=None):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.program.control, limit=1 << 22)
        client = Client(lambda text: self.note(name, text), reader, writer)
        self._clients.append(client)
        if quiet:
            client.note = lambda text: None
        data = raw if raw is not None else self.request(line, [*headers, "Connection: close"], body, host="control")
        await client.send(data)
        await client.response(line.startswith("HEAD"))
        if quiet and not client.status.startswith("200"):
            self.note(name, f"not published: {client.status}")

    def socket(self, kind, address):
        socket = CONTEXT.socket(kind)
        socket.linger = 1000
        socket.connect(address)
        self._sockets.append(socket)
        return socket

    async def command(self, request, kind=zmq.REQ, name="commander"):
        """Sends a command and notes the answer."""
        socket = self.socket(kind, f"tcp://127.0.0.1:{self.program.command}")
        data = request if isinstance(request, bytes) else tnetstring.dumps(request)
        await socket.send_multipart([data] if kind == zmq.REQ else [b"", data])
        try:
            answer = (await asyncio.wait_for(socket.recv_multipart(), 2))[-1]
            answer = tnetstring.readable(tnetstring.loads(answer))
            self.note(name, json.dumps(answer, sort_keys=True))
            return answer
        except asyncio.TimeoutError:
            self.note(name, "no answer")

    # Statistics.

    def _mine(self, value):
        return value.get("route") == self.key or str(value.get("channel", "")).find(self.key) >= 0

    async def held(self, mode, channel=None, count=None):
        """Waits until the program has told that a channel has listeners."""
        wanted = self.channel() if channel is None else channel
        hit = await self.stats.wait(
            lambda kind, value: kind == "sub" and value.get("channel") == wanted and value.get("mode") == mode
            and (value.get("subscribers", 0) >= (count or 1))
        )
        if hit is None:
            self.note("statistics", f"waited in vain for a {mode} listener of {wanted}")

    async def ended(self, connection):
        """Waits until the end of a connection is told, and notes it."""
        hit = await self.stats.wait(
            lambda kind, value: kind == "conn" and value["id"] == connection["id"] and value.get("unavailable")
        )
        self.note("statistics", f"conn {self._shown(hit[1])}" if hit else "waited in vain for the end of a connection")

    async def told(self, kind, wait=WAIT, **fields):
        """Waits for a message of this scenario's statistics that has these fields, and notes it."""
        hit = await self.stats.wait(
            lambda one, value: one == kind and self._mine(value) and all(value.get(k) == v for k, v in fields.items()),
            wait,
        )
        self.note("statistics", f"{kind} {self._shown(hit[1])}" if hit else f"waited in vain for {kind} {fields}")
        return hit and hit[1]

    def _shown(self, value):
        value = {key: one for key, one in value.items() if key not in ("from", "id")}
        return json.dumps(value, sort_keys=True)

    def _note_statistics(self):
        """What was told of the scenario, without what depends on the moment."""
        lines = set()
        for kind, value in self.stats.told:
            if not self._mine(value) or value.get("unavailable"):
                continue
            if kind == "sub":
                value = {key: one for key, one in value.items() if key != "subscribers"}
            if kind in ("sub", "conn", "message"):
                lines.add(f"{kind} {self._shown(value)}")
        self._notes.setdefault("statistics", []).extend(sorted(lines))

    # The end.

    async def finish(self):
        for client in self._clients:
            client.close()
        for socket in self._sockets:
            socket.close()
        await asyncio.sleep(0.2)
        self._note_statistics()

    def record(self):
        """The record as lines, without what differs from run to run."""
        lines = []
        for who, notes in sorted(self._notes.items()):
            if who == "backend":
                blocks = [[self._plain(line) for line in block] for block in notes]
                if not self.scenario.counted:
                    blocks = [block for at, block in enumerate(blocks) if at == 0 or block != blocks[at - 1]]
                notes = [line for block in blocks for line in block]
            else:
                notes = [self._plain(note) for note in notes]
            lines += [f"{who}: {note}" for note in notes]
        return lines

    def _plain(self, line):
        line = re.sub(r"(Grip-Sig: )(\S+)", lambda found: found[1] + signer(found[2]), line)
        line = line.replace(self.key, "KEY").replace(self.key.upper(), "KEY").replace(f":{self.backend.port}", ":TARGET")
        line = re.sub(rf"(Sec-WebSocket-Key: )(?!{KEY}).*", r"\1another", line)
        line = line.replace(f":{self.program.front}", ":FRONT").replace(self.program.directory, "DIRECTORY")
        for name in ("pull", "sub", "command", "control"):
            line = line.replace(f":{getattr(self.program, name)}", f":{name.upper()}")
        line = re.sub(UUID, "UUID", line)
        return re.sub(r'"entropy": ?\d+', '"entropy":N', line)


def signer(token):
    """Who signed a Grip-Sig, when the key is one that the scenarios know."""
    head, _, mark = token.rpartition(".")
    for secret in ("changeme", "other", "upstream"):
        digest = hmac.new(secret.encode(), head.encode(), hashlib.sha256).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == mark:
            body = head.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            return f"signed by {claims['iss']} with {secret}"
    return "not signed by a known key"


def token(secret, issuer="proxy", valid=3600):
    """A Grip-Sig as another proxy would make it."""
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    head = part({"typ": "JWT", "alg": "HS256"}) + "." + part({"iss": issuer, "exp": int(time.time()) + valid})
    mark = hmac.new(secret.encode(), head.encode(), hashlib.sha256).digest()
    return head + "." + base64.urlsafe_b64encode(mark).rstrip(b"=").decode()


def hold(mode, *channels, body="nothing\n", status="200 OK", headers=(), chunked=False):
    """An answer that holds the client."""
    named = [("Grip-Channel", channel) for channel in channels]
    return Reply(status, body, [("Content-Type", "text/plain"), ("Grip-Hold", mode), *named, *headers], chunked=chunked)


def instruct(value, headers=(), status="200 OK"):
    """The same as JSON."""
    body = value if isinstance(value, str) else json.dumps(value)
    return Reply(status, body, [("Content-Type", "application/grip-instruct"), *headers])


def text(body):
    """The same text for all kinds of holds."""
    return {"http-response": {"body": body}, "http-stream": {"content": body}, "ws-message": {"content": body}}
