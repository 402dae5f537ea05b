"""The smallest backend: whoever asks is held by waft, and gets what is published to the channel `news`."""

import os
from http.server import BaseHTTPRequestHandler, HTTPServer


class Backend(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Grip-Hold", "stream")
        self.send_header("Grip-Channel", "news")
        self.end_headers()
        self.wfile.write(b"welcome\n")


HTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Backend).serve_forever()
