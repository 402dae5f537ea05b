"""TNetStrings in which every string is bytes, under the name by which pubcontrol looks for them."""


def dumps(value):
    if value is None:
        return b"0:~"
    if isinstance(value, bool):
        return _framed(b"true" if value else b"false", b"!")
    if isinstance(value, int):
        return _framed(b"%d" % value, b"#")
    if isinstance(value, float):
        return _framed(repr(value).encode(), b"^")
    if isinstance(value, str):
        return _framed(value.encode(), b",")
    if isinstance(value, bytes):
        return _framed(value, b",")
    if isinstance(value, dict):
        return _framed(b"".join(dumps(key) + dumps(member) for key, member in value.items()), b"}")
    return _framed(b"".join(dumps(member) for member in value), b"]")


def loads(data):
    value, rest = _parse(data)
    if rest:
        raise ValueError("more than one value")
    return value


def _framed(data, kind):
    return b"%d:%s%s" % (len(data), data, kind)


def _parse(data):
    length, _, rest = data.partition(b":")
    data, kind, rest = rest[: int(length)], rest[int(length) : int(length) + 1], rest[int(length) + 1 :]
    if kind == b",":
        return data, rest
    if kind == b"#":
        return int(data), rest
    if kind == b"^":
        return float(data), rest
    if kind == b"!":
        return data == b"true", rest
    if kind == b"~":
        return None, rest
    members = []
    while data:
        member, data = _parse(data)
        members.append(member)
    if kind == b"]":
        return members, rest
    if kind == b"}":
        return dict(zip(members[::2], members[1::2])), rest
    raise ValueError("unknown type %r" % kind)


def readable(value):
    """The same with text for bytes."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {readable(key): readable(member) for key, member in value.items()}
    if isinstance(value, list):
        return [readable(member) for member in value]
    return value
