"""A ZHTTP worker behind an adapter: answers every request with its method, path and body, in one packet."""

import sys

import zmq

OUT, IN = sys.argv[1:]


def tnet(data):
    length, rest = data.split(b":", 1)
    payload, kind, rest = rest[: int(length)], rest[int(length) : int(length) + 1], rest[int(length) + 1 :]
    if kind == b"}":
        value = {}
        while payload:
            key, payload = tnet(payload)
            value[key], payload = tnet(payload)
        return value, rest
    if kind == b"]":
        value = []
        while payload:
            item, payload = tnet(payload)
            value.append(item)
        return value, rest
    return (int(payload) if kind == b"#" else payload), rest


context = zmq.Context()
pull = context.socket(zmq.PULL)
pull.connect(OUT)
pub = context.socket(zmq.XPUB)
pub.connect(IN)
pub.recv()
print("connected", flush=True)
while True:
    request = tnet(pull.recv()[1:])[0]
    if b"method" not in request:
        continue
    body = b"%s %s %s" % (request[b"method"], request[b"uri"].split(b"/", 3)[3], request.get(b"body", b""))
    net = lambda data, kind=b",": b"%d:%s%s" % (len(data), data, kind)
    fields = net(b"from") + net(b"worker") + net(b"id") + net(request[b"id"]) + net(b"seq") + net(b"0", b"#")
    fields += net(b"code") + net(b"200", b"#") + net(b"reason") + net(b"OK")
    header = net(net(b"X-Worker") + net(b"yes"), b"]")
    fields += net(b"headers") + net(header, b"]") + net(b"body") + net(body)
    pub.send(request[b"from"] + b" T" + net(fields, b"}"))
