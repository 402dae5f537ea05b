"""A receiver of webhooks that checks signatures with the library of Standard Webhooks.

    pip install standardwebhooks
    SECRET=whsec_... python receiver.py
"""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["SECRET"])
seen = set()
lock = threading.Lock()


def tell(line):
    with lock:
        print(line, flush=True)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # The answer leaves in one packet with its head.
    wbufsize = -1

    def do_POST(self):
        # The signature covers the bytes as they came, so they are checked before they are parsed.
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            webhook.verify(body, dict(self.headers))
        except WebhookVerificationError as error:
            tell(f"refused {self.headers.get('webhook-id')}: {error}")
            return self.answer(401)
        message = self.headers["webhook-id"]
        with lock:
            # Delivery is at least once: the id tells what was here before.
            again = message in seen
            seen.add(message)
        tell(f"{'again' if again else 'received'} {message} {json.dumps(json.loads(body))}")
        self.answer(204)

    def do_GET(self):
        """The challenge of an endpoint with `challenge = "echo"`."""
        _, _, text = self.path.partition("challenge=")
        self.answer(200, text.encode())

    def answer(self, status, body=b""):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


print("ready", flush=True)
Server(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Receiver).serve_forever()
