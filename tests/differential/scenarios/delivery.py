"""Filters, variables, sequences, positions, and links."""

import asyncio

from peers import Reply
from world import hold, scenario, text


def stream_sees(name, channel, meta, items, config="stock", body="open\n", after="end", extra=()):
    """What a stream gets of items, each text and fields; the last one is known to pass."""

    async def play(w):
        headers = [("Grip-Set-Meta", one) for one in meta] + list(extra)
        w.reply(hold("stream", channel.replace("KEYKEY", w.key), body=body, headers=headers))
        client = await w.stream()
        await w.held("stream")
        for content, fields in items:
            fields = dict(fields)
            formats = {kind: {**form, **fields.pop("form", {})} if kind == "http-stream" else form
                       for kind, form in text(content).items()} if "form" in fields else text(content)
            await w.publish(formats, **fields)
        await client.until(after, 2)
        client.show()

    scenario(name, config=config)(play)


SELF = [("own\n", {"meta": {"sender": "me"}}), ("other\n", {"meta": {"sender": "you"}}), ("end", {})]
stream_sees("skip-self", "KEYKEY; filter=skip-self", ["user=me"], SELF)
stream_sees("skip-self without a user", "KEYKEY; filter=skip-self", [], SELF)
USERS = [("a\n", {"meta": {"skip_users": "you, me"}}), ("b\n", {"meta": {"skip_users": "you"}}), ("end", {})]
stream_sees("skip-users", "KEYKEY; filter=skip-users", ["user=me"], USERS)
SUB = [("a\n", {"meta": {"require_sub": "other"}}), ("b\n", {"meta": {"require_sub": ""}}), ("end", {})]
stream_sees("require-sub", "KEYKEY; filter=require-sub", [], SUB)
stream_sees("require-sub of a channel that is there", "KEYKEY; filter=require-sub, other", [], SUB)
VAR = [("hello %(user)s 100%%\n", {}), ("end", {})]
stream_sees("var-subst", "KEYKEY; filter=var-subst", ["user=me"], VAR)
stream_sees("var-subst in quotes of meta", "KEYKEY; filter=var-subst", ['user="a b"'], VAR)
stream_sees("var-subst of what is missing", "KEYKEY; filter=var-subst", ["name=me"], VAR, after="never")
stream_sees("var-subst with a mistake", "KEYKEY; filter=var-subst", ["user=me"], [("%x\n", {}), ("end", {})], after="never")
stream_sees("an unknown filter", "KEYKEY; filter=whatever", [], [("a\n", {}), ("end", {})])
stream_sees("two filters", "KEYKEY; filter=skip-self; filter=var-subst", ["user=me"], SELF[:1] + VAR)
stream_sees("two pieces of meta", "KEYKEY; filter=var-subst", ["user=me, more=2"], [("%(user)s\n", {}), ("end", {})])
ID = [("id: %I\n50%%\n", {"id": "8", "prev-id": "7"}), ("id: %I\nend", {"id": "9", "prev-id": "8"})]
LINK = [("Grip-Link", "</next>; rel=next")]
stream_sees("build-id", "KEYKEY; prev-id=7; filter=build-id", ["id_format=%(KEYKEY)s:x"], ID, body="at %I %%\n", extra=LINK)
FORMAT = [("id_format", "x")]
stream_sees("build-id of letters", "KEYKEY; filter=build-id", ["id_format=fix"], [("%I %(lit)I %%\n", {}), ("end", {})],
            body="at %I\n")
stream_sees("build-id in hexadecimal", "KEYKEY; filter=build-id", ["id_format=fix", "id_encoding=hex"],
            [("%I %(lit)I\n", {}), ("end", {})], body="at %I\n")
stream_sees("build-id without a format", "KEYKEY; filter=build-id", [], [("%I\n", {})], body="at %I\n", after="never")
stream_sees("build-id with a mistake", "KEYKEY; filter=build-id", ["id_format=fix"], [("%z\n", {})], body="ok\n", after="never")
CONTENT = [("a\n", {"form": {"content-filters": ["var-subst"]}}), ("b\n", {"form": {"content-filters": []}}), ("end", {})]
stream_sees("content filters that agree", "KEYKEY; filter=var-subst", ["user=me"], CONTENT[:1] + CONTENT[2:])
stream_sees("content filters that do not agree", "KEYKEY", [], CONTENT[:1] + CONTENT[2:], after="never")

PLAIN = [("one\n", {"id": "1"}), ("again\n", {"id": "1"}), ("end", {"id": "2"})]
stream_sees("an id that was there is dropped", "KEYKEY", [], PLAIN)
stream_sees("an id that was there is not dropped without a cache", "KEYKEY", [], PLAIN, config="other")
ORDER = [("1\n", {"id": "1"}), ("3\n", {"id": "3", "prev-id": "2"}), ("2\n", {"id": "2", "prev-id": "1"}),
         ("end", {"id": "4", "prev-id": "3"})]
stream_sees("items out of order are put in order", "KEYKEY", [], ORDER)
stream_sees("items out of order with no-seq", "KEYKEY", [], [(one, {**more, "no-seq": True}) for one, more in ORDER])
MISSING = [("1\n", {"id": "1"}), ("3\n", {"id": "3", "prev-id": "2"}), ("end", {"id": "4", "prev-id": "3"})]
stream_sees("an item that never comes is not waited for long", "KEYKEY", [], MISSING, after="never")
WITHOUT = [("1\n", {"id": "1"}), ("no id\n", {}), ("3\n", {"id": "3", "prev-id": "2"}), ("end", {"id": "4", "prev-id": "3"})]
stream_sees("an item without an id ends the chain", "KEYKEY", [], WITHOUT)


def poll_sees(name, items, channel="KEYKEY", meta=(), config="stock"):
    async def play(w):
        headers = [("Grip-Set-Meta", one) for one in meta]
        w.reply(hold("response", channel.replace("KEYKEY", w.key), headers=headers))
        client = await w.send()
        await w.held("response")
        for content, fields in items:
            await w.publish(text(content), **fields)
        await client.response()

    scenario(name, config=config)(play)


poll_sees("skip-self on a poll", SELF, "KEYKEY; filter=skip-self", ["user=me"])
poll_sees("skip-users on a poll", USERS, "KEYKEY; filter=skip-users", ["user=me"])
poll_sees("var-subst on a poll", VAR, "KEYKEY; filter=var-subst", ["user=me"])
poll_sees("build-id on a poll", [("%I", {})], "KEYKEY; filter=build-id", ["id_format=fix"])
poll_sees("a filter that fails on a poll", VAR[:1], "KEYKEY; filter=var-subst", [], config="other")


@scenario("a poll whose position is old asks again", counted=True)
async def play(w):
    w.reply(
        hold("stream", w.channel()),
        hold("response", f"{w.channel()}; prev-id=1"),
        Reply(body="what came since\n"),
    )
    await (await w.stream("GET /s", name="stream")).until("nothing")
    await w.held("stream")
    await asyncio.sleep(1.2)
    await w.publish(text("a"), id="1")
    await w.publish(text("b"), id="2", **{"prev-id": "1"})
    client = await w.send("GET /p")
    await client.response()


@scenario("a poll whose position is right waits", counted=True)
async def play(w):  # noqa: F811
    w.reply(hold("stream", w.channel()), hold("response", f"{w.channel()}; prev-id=1"))
    await (await w.stream("GET /s", name="stream")).until("nothing")
    await w.held("stream")
    await asyncio.sleep(1.2)
    await w.publish(text("a"), id="1")
    client = await w.send("GET /p")
    await w.held("response")
    await w.publish(text("next"), id="2", **{"prev-id": "1"})
    await client.response()


@scenario("a poll that misses an item asks again", counted=True)
async def play(w):  # noqa: F811
    w.reply(hold("stream", w.channel()), hold("response", f"{w.channel()}; prev-id=1"), Reply(body="caught up\n"))
    await (await w.stream("GET /s", name="stream")).until("nothing")
    await w.held("stream")
    await asyncio.sleep(1.2)
    client = await w.send("GET /p")
    await w.held("response")
    await w.publish(text("too new"), id="3", **{"prev-id": "2"})
    await client.response()


def follows(name, first, **pages):
    """A stream and the pages it is continued by."""

    async def play(w):
        def filled(reply):
            headers = [(one, value.replace("KEYKEY", w.key)) for one, value in reply.headers]
            return Reply(reply.status, reply.body, headers)

        w.reply(filled(first))
        for path, page in pages.items():
            w.on(f"/{path}", filled(page))
        client = await w.stream("GET /", ["X-Mine: a", "Cookie: b"])
        await client.until(None, 3)
        client.show()

    scenario(f"links: {name}", counted=True)(play)


def page(body, *links, headers=(), status="200 OK"):
    return Reply(status, body, [*(("Grip-Link", link) for link in links), *headers])


follows("pages follow each other", page("1 ", "</two>; rel=next"), two=page("2 ", "</three>; rel=next"), three=page("3"))
follows("a link with a query", page("1 ", "</two?a=b&c>; rel=next"), two=page("2"))
follows("a relative link", page("1 ", "<two>; rel=next"), two=page("2"))
follows("a whole address", page("1 ", "<http://KEYKEY.test/two>; rel=next"), two=page("2"))
follows("an unknown relation", page("1 ", "</two>; rel=other"), two=page("2"))
follows("a link without a relation", page("1 ", "</two>"), two=page("2"))
follows("the last of two links", page("1 ", "</no>; rel=next", "</two>; rel=next"), two=page("2"))
follows("a page that becomes a stream", page("1 ", "</two>; rel=next"),
        two=page("2", headers=[("Grip-Hold", "stream"), ("Grip-Channel", "KEYKEY")]))
follows("a page that becomes a poll", page("1 ", "</two>; rel=next"),
        two=page("2", headers=[("Grip-Hold", "response"), ("Grip-Channel", "KEYKEY")]))
follows("a stream with a position and no link", Reply(body="1 ", headers=[
    ("Grip-Hold", "stream"), ("Grip-Channel", "KEYKEY; prev-id=1")]))
follows("a status of a first page", page("1 ", "</two>; rel=next", status="404 Not Found"), two=page("2"))


@scenario("links: a hint fetches the next page", counted=True)
async def play(w):  # noqa: F811
    w.reply(hold("stream", f"{w.channel()}", headers=[("Grip-Link", "</more>; rel=next")]))
    w.on("/more", hold("stream", f"{w.channel()}", body="more\n", headers=[("Grip-Link", "</more>; rel=next")]))
    client = await w.stream()
    await client.until("nothing")
    await client.until("more", 3)
    await w.publish({"http-stream": {"action": "hint"}})
    await client.until("more\nmore")
    client.show()


@scenario("links: a gap fetches the next page with positions", counted=True)
async def play(w):  # noqa: F811
    link = [("Grip-Link", "</more?x>; rel=next")]
    w.reply(hold("stream", f"{w.channel()}; prev-id=1", headers=link))
    w.on("/more",
         hold("stream", f"{w.channel()}; prev-id=1", body="", headers=link),
         hold("stream", f"{w.channel()}; prev-id=3", body="two three\n", headers=link))
    client = await w.stream()
    await client.until("nothing")
    await w.asked(2)
    await asyncio.sleep(0.3)
    await w.publish(text("one is missing\n"), id="3", **{"prev-id": "2"})
    await client.until("three")
    await asyncio.sleep(0.3)
    await w.publish(text("end"), id="4", **{"prev-id": "3"})
    await client.until("end")
    client.show()


@scenario("links: a page may change the channels", counted=True)
async def play(w):  # noqa: F811
    link = [("Grip-Link", "</more>; rel=next")]
    w.reply(hold("stream", w.channel("a"), headers=link))
    w.on("/more", hold("stream", w.channel("b"), body="more\n", headers=link))
    client = await w.stream()
    await client.until("more", 3)
    await w.held("stream", w.channel("b"))
    await w.publish(text("old\n"), w.channel("a"))
    await w.publish(text("end"), w.channel("b"))
    await client.until("end")
    client.show()


@scenario("recover asks again for all holds", counted=True)
async def play(w):  # noqa: F811
    w.reply(hold("stream", w.channel(), headers=[("Grip-Link", "</more>; rel=next")]))
    w.on("/more", hold("stream", w.channel(), body="more\n", headers=[("Grip-Link", "</more>; rel=next")]))
    client = await w.stream()
    await client.until("more", 3)
    client.show()
