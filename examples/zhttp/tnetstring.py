"""TNetStrings, as far as these workers need them; a package from PyPI does as well."""


def dumps(value):
    if isinstance(value, bool):
        data, kind = b"true" if value else b"false", b"!"
    elif isinstance(value, int):
        data, kind = b"%d" % value, b"#"
    elif isinstance(value, bytes):
        data, kind = value, b","
    elif isinstance(value, list):
        data, kind = b"".join(map(dumps, value)), b"]"
    else:
        data, kind = b"".join(dumps(key) + dumps(item) for key, item in value.items()), b"}"
    return b"%d:%b%b" % (len(data), data, kind)


def loads(text):
    return take(text)[0]


def take(text):
    size, text = text.split(b":", 1)
    data, kind, rest = text[: int(size)], text[int(size) : int(size) + 1], text[int(size) + 1 :]
    if kind == b",":
        return data, rest
    if kind == b"#":
        return int(data), rest
    if kind == b"!":
        return data == b"true", rest
    items = []
    while data:
        item, data = take(data)
        items.append(item)
    return (items if kind == b"]" else dict(zip(items[::2], items[1::2], strict=True))), rest
