"""Puts TLS before a plain server (accept), or a plain port before a TLS server (connect), and tells of every handshake.

tls_relay.py accept HOST:PORT cert key [client-ca]
tls_relay.py connect HOST:PORT server-name ca [cert key] [version]
"""

import asyncio
import json
import ssl
import sys


def say(**facts):
    print(json.dumps(facts), flush=True)


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass
    writer.close()


async def join(one, other):
    await asyncio.gather(pump(one[0], other[1]), pump(other[0], one[1]))


def facts(writer, name):
    tls = writer.get_extra_info("ssl_object")
    subject = tls.getpeercert() or {}
    names = [value for field in subject.get("subject", ()) for key, value in field if key == "commonName"]
    return dict(name=name, reused=tls.session_reused, alpn=tls.selected_alpn_protocol(), version=tls.version(), peer=names)


async def accept(place, cert, key, client_ca=None):
    host, port = place.rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["http/1.1"])
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED

    def note_name(tls, name, _context):
        tls.asked_for = name

    context.sni_callback = note_name

    async def serve(reader, writer):
        say(handshake=facts(writer, getattr(writer.get_extra_info("ssl_object"), "asked_for", None)))
        await join((reader, writer), await asyncio.open_connection(host, int(port)))

    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, backlog=1000)


async def connect(place, name, ca, *more):
    host, port = place.rsplit(":", 1)
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    more = list(more)
    if more and more[-1] == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        more.pop()
    if more:
        context.load_cert_chain(*more)

    async def serve(reader, writer):
        try:
            outside = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name)
        except (OSError, ssl.SSLError) as error:
            say(failed=str(error))
            writer.close()
            return
        say(handshake=facts(outside[1], name))
        await join((reader, writer), outside)

    return await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000)


async def main(kind, *arguments):
    server = await {"accept": accept, "connect": connect}[kind](*arguments)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: say(failed=str(context.get("exception"))))
    say(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
