"""Makes twenty requests over one HTTP/2 connection of httpx and prints the answers."""

import sys

import httpx

with httpx.Client(http1=False, http2=True) as client:
    for number in range(20):
        answer = client.get(f"http://{sys.argv[1]}/{number}")
        print(answer.http_version, answer.status_code, answer.text)
