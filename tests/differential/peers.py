"""What a scenario talks with: a backend that answers by script, and clients of HTTP and WebSocket that show all they see.

Nothing here is taken from waft or Pushpin: the bytes are read by the plainest means.
"""

import asyncio
import base64
import hashlib
import os
import struct

# How long anything may take before it counts as not coming.
WAIT = 5


def lines(head):
    """The first line of a head and its headers."""
    first, *rest = head.decode("latin-1").split("\r\n")
    return first, [tuple(part.strip() for part in line.partition(":")[::2]) for line in rest if line]


def header(headers, name, default=None):
    return next((value for key, value in headers if key.lower() == name.lower()), default)


class Reply:
    """What the backend answers. With `raw`, these bytes and then the end of the connection."""

    def __init__(self, status="200 OK", body=b"", headers=(), raw=None, chunked=False):
        self.status, self.headers, self.raw, self.chunked = status, list(headers), raw, chunked
        self.body = body.encode() if isinstance(body, str) else body

    def write(self, head_only):
        if self.raw is not None:
            return self.raw.encode("latin-1") if isinstance(self.raw, str) else self.raw
        text = f"HTTP/1.1 {self.status}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        empty = self.status[:3] in ("204", "304")
        body = self.body
        if self.chunked:
            text += "Transfer-Encoding: chunked\r\n"
            half = len(body) // 2
            parts = [part for part in (body[:half], body[half:]) if part]
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        elif not empty:
            text += f"Content-Length: {len(body)}\r\n"
        return text.encode() + b"\r\n" + (b"" if head_only or empty else body)


class Request:
    """A request as the backend got it."""

    def __init__(self, first, headers, body):
        self.method, self.path, self.version = (first.split(" ") + ["", ""])[:3]
        self.headers, self.body = headers, body

    def header(self, name, default=None):
        return header(self.headers, name, default)


async def read_request(reader):
    first, headers = lines((await reader.readuntil(b"\r\n\r\n"))[:-4])
    return Request(first, headers, await read_body(reader, headers, False))


async def read_body(reader, headers, until_end):
    if "chunked" in header(headers, "Transfer-Encoding", ""):
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return body
    length = header(headers, "Content-Length")
    if length is not None:
        return await reader.readexactly(int(length))
    return await reader.read() if until_end else b""


class Backend:
    """Hands each request to the scenario whose key it names."""

    def __init__(self, find):
        self._find = find

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 22)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader, writer):
        try:
            while True:
                request = await read_request(reader)
                named = f"{request.header('Host')} {request.path} {request.headers}"
                if (world := self._find(named)) is None:
                    reply = Reply("500 Nobody", "no scenario")
                else:
                    reply = await world.answer(request, reader, writer)
                if reply is None:
                    return
                writer.write(reply.write(request.method == "HEAD"))
                await writer.drain()
                if reply.raw is not None:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def shown(data):
    """Bytes as a line of text."""
    if len(data) > 2000:
        return f"{len(data)} bytes, {hashlib.sha1(data).hexdigest()[:8]}"
    return data.decode("utf-8", "backslashreplace").encode("unicode_escape").decode()


class Client:
    """A client connection; what it sees goes into the record under its name."""

    def __init__(self, note, reader, writer):
        self.note, self.reader, self.writer = note, reader, writer
        self._stream, self._state, self._task = b"", "open", None

    async def send(self, data):
        self.writer.write(data.encode("latin-1") if isinstance(data, str) else data)
        await self.writer.drain()

    async def response(self, head_only=False):
        """Reads a whole response, or notes that there is none."""
        try:
            async with asyncio.timeout(WAIT):
                headers = await self._head(head_only)
                if headers is None:
                    return
                empty = head_only or self.status[:3] in ("204", "304")
                body = b"" if empty else await read_body(self.reader, headers, True)
                self.note(f"  body: {shown(body)}")
                return body
        except asyncio.TimeoutError:
            self.note("nothing came")
        except asyncio.IncompleteReadError as error:
            self.note(f"cut after: {shown(error.partial)}")

    async def _head(self, head_only=False):
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n"))[:-4]
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.note(f"closed {shown(getattr(error, 'partial', b''))}".strip())
            return None
        first, headers = lines(head)
        self.status = first.partition(" ")[2]
        self.note(first)
        # What frames the body has one place, whichever it is.
        places = {"transfer-encoding": "content-length"}
        for name, value in sorted(headers, key=lambda pair: (places.get(pair[0].lower(), pair[0].lower()), pair[1])):
            # A body is as long as it says, or it is noted as cut.
            implied = name.lower() == "content-length" and not head_only
            self.note(f"  {name}" if implied else f"  {name}: {value}")
        return headers

    async def stream(self):
        """Reads the head of a response whose body goes on."""
        try:
            async with asyncio.timeout(WAIT):
                headers = await self._head()
        except asyncio.TimeoutError:
            headers = None
            self.note("nothing came")
        self._changed = asyncio.Event()
        if headers is None:
            self._state = "none"
        else:
            length = header(headers, "Content-Length")
            if length is not None:
                self._task = asyncio.create_task(self._read_whole(int(length)))
            else:
                self._task = asyncio.create_task(self._read_on("chunked" in header(headers, "Transfer-Encoding", "")))
        return self

    async def _read_on(self, chunked):
        try:
            while self._state == "open":
                if chunked:
                    size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
                    self._stream += await self.reader.readexactly(size)
                    await self.reader.readexactly(2)
                    if size == 0:
                        self._state = "ended"
                elif data := await self.reader.read(65536):
                    self._stream += data
                else:
                    self._state = "ended"
                self._changed.set()
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            self._state = "cut"
            self._changed.set()

    async def _read_whole(self, length):
        try:
            self._stream = await self.reader.readexactly(length)
            self._state = "ended"
        except asyncio.IncompleteReadError as error:
            self._stream, self._state = error.partial, "cut"
        self._changed.set()

    async def until(self, text, wait=WAIT):
        """Waits until the stream has brought this text, or, when it is None, until its end."""
        try:
            async with asyncio.timeout(wait):
                while self._state == "open" if text is None else text.encode() not in self._stream:
                    if self._state != "open":
                        break
                    self._changed.clear()
                    await self._changed.wait()
        except asyncio.TimeoutError:
            self.note(f"waited in vain for {text or 'the end'}")

    def show(self):
        """Notes what the stream brought and whether it has ended."""
        self.note(f"stream {self._state}: {shown(self._stream)}")

    async def closed(self):
        """Notes whether the other side closes."""
        try:
            rest = await asyncio.wait_for(self.reader.read(65536), WAIT)
            self.note(f"still came: {shown(rest)}" if rest else "closed")
        except asyncio.TimeoutError:
            self.note("stays open")
        except ConnectionError:
            self.note("closed")

    async def silent(self, seconds):
        """Notes what comes within this time."""
        try:
            rest = await asyncio.wait_for(self.reader.read(65536), seconds)
            self.note(f"came: {shown(rest)}" if rest else "closed")
        except asyncio.TimeoutError:
            self.note("nothing came")
        except ConnectionError:
            self.note("closed")

    def close(self):
        if self._task:
            self._task.cancel()
        self.writer.close()


OPCODES = {"CONT": 0, "TEXT": 1, "BINARY": 2, "CLOSE": 8, "PING": 9, "PONG": 10}
NAMES = {value: name for name, value in OPCODES.items()}
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def frame(kind, payload=b"", fin=True, mask=False):
    payload = payload.encode() if isinstance(payload, str) else payload
    size, bit = len(payload), 0x80 if mask else 0
    head = bytes([OPCODES[kind] | (0x80 if fin else 0)])
    if size < 126:
        head += bytes([size | bit])
    elif size < 65536:
        head += bytes([126 | bit]) + struct.pack(">H", size)
    else:
        head += bytes([127 | bit]) + struct.pack(">Q", size)
    if mask:
        key = os.urandom(4)
        head += key
        payload = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return head + payload


async def read_frame(reader):
    """The name of a frame's kind, whether it is the last of its message, and its content."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack(">H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", await reader.readexactly(8))
    key = await reader.readexactly(4) if second & 0x80 else bytes(4)
    payload = await reader.readexactly(size)
    return NAMES.get(first & 15, "?"), bool(first & 0x80), bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def close_content(code, reason=""):
    return struct.pack(">H", code) + reason.encode()


def shown_close(payload):
    return f"{struct.unpack('>H', payload[:2])[0]} {shown(payload[2:])}".strip() if payload else "without code"


class WebSocket(Client):
    """A client after its handshake."""

    async def message(self, kind, payload=b"", fin=True):
        await self.send(frame(kind, payload, fin, mask=True))

    async def receive(self, wait=WAIT):
        """Notes the next message, with its fragments put together."""
        try:
            async with asyncio.timeout(wait):
                whole, first = b"", None
                while True:
                    kind, fin, payload = await read_frame(self.reader)
                    if kind in ("CLOSE", "PING", "PONG"):
                        self.note(f"{kind} {shown_close(payload) if kind == 'CLOSE' else shown(payload)}".strip())
                        return kind, payload
                    whole, first = whole + payload, first or kind
                    if fin:
                        self.note(f"{first} {shown(whole)}")
                        return first, whole
        except asyncio.TimeoutError:
            self.note("no message came")
        except (asyncio.IncompleteReadError, ConnectionError):
            self.note("dropped")
        return None, b""


def accept_key(key):
    return base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


def events(*list_of):
    """WebSocket events as they stand in bodies over HTTP: kinds, or pairs of a kind and its content."""
    text = b""
    for event in list_of:
        if isinstance(event, str):
            text += event.encode() + b"\r\n"
        else:
            content = event[1].encode() if isinstance(event[1], str) else event[1]
            text += b"%s %x\r\n%s\r\n" % (event[0].encode(), len(content), content)
    return text
