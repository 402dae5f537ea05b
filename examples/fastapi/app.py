"""A stateless WebSocket with FastAPI and no library: events are read from requests and written into responses."""

import json
import os

import requests
from fastapi import FastAPI, Request, Response

app = FastAPI()

EVENTS = "application/websocket-events"
CONTROL = os.environ.get("CONTROL", "http://127.0.0.1:5561")


def read(body: bytes):
    """The events of a body: `TYPE` or `TYPE LENGTH`, a line end, and where there is a length the content."""
    while body:
        line, body = body.split(b"\r\n", 1)
        kind, _, length = line.partition(b" ")
        content = None
        if length:
            size = int(length, 16)
            content, body = body[:size], body[size + 2 :]
        yield kind.decode(), content


def write(kind: str, content: bytes | None = None) -> bytes:
    if content is None:
        return kind.encode() + b"\r\n"
    return b"%s %x\r\n%s\r\n" % (kind.encode(), len(content), content)


def control(**message) -> bytes:
    """A message for waft, which the client does not see."""
    return write("TEXT", b"c:" + json.dumps(message).encode())


@app.post("/ws")
async def ws(request: Request):
    if request.headers.get("content-type") != EVENTS:
        return Response("Open a WebSocket through waft.\n", status_code=400)
    answer = b""
    for kind, content in read(await request.body()):
        if kind == "OPEN":
            answer += write("OPEN") + control(type="subscribe", channel="room")
        elif kind in ("TEXT", "BINARY"):
            answer += write(kind, b"m:" + content)
        elif kind == "PING":
            answer += write("PONG", content)
        elif kind == "CLOSE":
            answer += write("CLOSE", content)
    headers = {"Content-Type": EVENTS, "Sec-WebSocket-Extensions": "grip"}
    return Response(answer, headers=headers)


@app.post("/say")
async def say(request: Request):
    """Sends the body of the request to all WebSockets."""
    text = (await request.body()).decode()
    item = {"channel": "room", "formats": {"ws-message": {"content": text}}}
    requests.post(f"{CONTROL}/publish/", json={"items": [item]}, timeout=5).raise_for_status()
    return Response("said\n")
