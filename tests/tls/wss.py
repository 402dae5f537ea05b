"""A client of the library websockets: an echo, a published message, and an orderly end."""

import asyncio
import ssl
import sys

import websockets

port, authorities = sys.argv[1:]


async def main():
    context = ssl.create_default_context(cafile=authorities)
    uri = f"wss://app.example:{port}/ws?channel=c"
    async with websockets.connect(uri, ssl=context, host="127.0.0.1") as socket:
        await socket.send("hello" * 10_000)
        assert await socket.recv() == "hello" * 10_000
        print("echoed")
        print("got", await socket.recv())
    print("closed", socket.close_code)
    assert socket.close_code == 1000


asyncio.run(main())
