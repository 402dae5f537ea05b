"""TNetStrings, by an implementation that is not the program's."""


def encode(value):
    if value is None:
        return b"0:~"
    if isinstance(value, bool):
        data, kind = (b"true" if value else b"false"), b"!"
    elif isinstance(value, int):
        data, kind = str(value).encode(), b"#"
    elif isinstance(value, float):
        data, kind = str(value).encode(), b"^"
    elif isinstance(value, (bytes, str)):
        data, kind = (value.encode() if isinstance(value, str) else value), b","
    elif isinstance(value, (list, tuple)):
        data, kind = b"".join(encode(item) for item in value), b"]"
    else:
        data, kind = b"".join(encode(key) + encode(item) for key, item in value.items()), b"}"
    return str(len(data)).encode() + b":" + data + kind


def decode(data):
    value, rest = first(data)
    assert rest == b"", rest
    return value


def first(data):
    length, rest = data.split(b":", 1)
    size = int(length)
    body, kind, rest = rest[:size], rest[size : size + 1], rest[size + 1 :]
    if kind == b",":
        return body, rest
    if kind == b"#":
        return int(body), rest
    if kind == b"^":
        return float(body), rest
    if kind == b"!":
        return body == b"true", rest
    if kind == b"~":
        return None, rest
    items = []
    while body:
        item, body = first(body)
        items.append(item)
    if kind == b"]":
        return items, rest
    assert kind == b"}", kind
    return {items[i].decode(): items[i + 1] for i in range(0, len(items), 2)}, rest
