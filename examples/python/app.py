"""A backend for waft that needs nothing but Python.

It answers short requests only; waft keeps the clients. See README.md beside this file.
"""

import json
import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(os.environ.get("PORT", "8000"))
CONTROL = os.environ.get("CONTROL", "http://127.0.0.1:5561")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/stream":
            # The body is sent at once, and what is published follows it.
            self.answer("welcome\n", {"Grip-Hold": "stream", "Grip-Channel": "news"})
        elif self.path == "/poll":
            # Nothing is sent before something is published; the body is for the timeout.
            self.answer("no news\n", {"Grip-Hold": "response", "Grip-Channel": "news", "Grip-Timeout": "25"})
        elif self.path == "/events":
            self.answer(
                "event: open\ndata: welcome\n\n",
                {
                    "Content-Type": "text/event-stream",
                    "Grip-Hold": "stream",
                    "Grip-Channel": "news",
                    "Grip-Keep-Alive": r":\n\n; format=cstring; timeout=20",
                },
            )
        else:
            self.answer("Try /stream, /poll or /events.\n", {})

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        publish("news", text)
        self.answer("published\n", {})

    def answer(self, body, headers):
        body = body.encode()
        self.send_response(200)
        for name, value in ({"Content-Type": "text/plain"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def publish(channel, text):
    """Sends the text to all who stream from the channel or poll it."""
    item = {
        "channel": channel,
        "formats": {
            "http-stream": {"content": f"data: {text}\n\n"},
            "http-response": {"body": text + "\n"},
        },
    }
    body = json.dumps({"items": [item]}).encode()
    with urllib.request.urlopen(f"{CONTROL}/publish/", data=body, timeout=10) as answer:
        answer.read()


if __name__ == "__main__":
    print(f"listening on 127.0.0.1:{PORT}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
