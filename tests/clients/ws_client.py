"""A client with the package websockets; it does what ws_client.mjs does. Usage: python ws_client.py URL"""

import asyncio
import sys

import websockets


async def main(url):
    sent = heard = 0
    async with websockets.connect(url) as socket:
        print("open")
        async for text in socket:
            print(f"heard {text}")
            if text == "go":
                sent += 1
                await socket.send(f"number {sent}")
            elif text == "stop":
                await socket.close(1000, "done")
            else:
                heard += 1
                if text != f"number {heard}":
                    raise RuntimeError(f"{text} came when number {heard} was expected")
        print(f"closed {socket.close_code}")
        sys.exit(0 if socket.close_code == 1000 else 1)


asyncio.run(main(sys.argv[1]))
