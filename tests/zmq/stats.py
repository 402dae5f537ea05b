"""Prints statistics as `type {json}`, a line each, without what differs from run to run. Arguments: address, encoding.

`from` is left out, connections are called `http-1`, `ws-1` and so on, and a `duration` is printed as true when it is there.
"""

import json
import re
import sys

import tnetstring
import zmq

address, encoding = sys.argv[1:]
socket = zmq.Context().socket(zmq.SUB)
socket.subscribe(b"")
socket.connect(address)
print("listening", flush=True)
names = {}

while True:
    (frame,) = socket.recv_multipart()
    kind, _, rest = frame.partition(b" ")
    if encoding == "json":
        assert rest[:1] == b"J", frame
        text = rest[1:].decode()
        value = json.loads(text)
        assert list(value) == sorted(value) and ", " not in text and '": ' not in text, text
    else:
        assert rest[:1] == b"T", frame
        value = tnetstring.readable(tnetstring.loads(rest[1:]))
    assert re.fullmatch(r"pushpin-handler_\d+", value.pop("from")), frame
    if "id" in value:
        known = value["id"]
        if known not in names and "type" not in value:
            # It began before anyone listened here.
            continue
        form = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}" if value.get("type") == "ws" else r"\w+:[\w-]+"
        if known not in names:
            assert re.fullmatch(form, known), frame
            same = sum(name.startswith(value["type"]) for name in names.values())
            names[known] = "%s-%d" % (value["type"], same + 1)
        value["id"] = names[known]
    if "duration" in value:
        value["duration"] = 0 < value["duration"] < 60000
    print(kind.decode(), json.dumps(value, sort_keys=True), flush=True)
