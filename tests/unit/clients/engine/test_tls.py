"""Certificates between the client and an engine."""

import asyncio
import socket
import ssl

import pytest
import trustme

from imagewright.clients.engine.address import Tls
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import TlsFailed, Unreachable
from tests.support.fake_engine import FakeEngine, Reply

AUTHORITY = trustme.CA()
OTHER = trustme.CA()


def server_side() -> ssl.SSLContext:
    """TLS of an engine that lets in only those it knows."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("engine.test").configure_cert(context)
    AUTHORITY.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_side(authority: trustme.CA, issuer: trustme.CA | None, name: str) -> Tls:
    """Our side: whom we trust, who vouches for us, and who we think the engine is."""
    ca = authority.cert_pem.bytes()
    if issuer is None:
        return Tls(ca, server_name=name)
    leaf = issuer.issue_cert("operator.test")
    cert = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    return Tls(ca, cert, leaf.private_key_pem.bytes(), name)


async def test_both_sides_show_their_certificate() -> None:
    async with FakeEngine(server_side(), info=Reply([b"{}"])) as fake:
        engine = Engine(fake.address, client_side(AUTHORITY, AUTHORITY, "engine.test"))
        assert (await engine.info()).name == ""
        await engine.close()


@pytest.mark.parametrize(
    "tls",
    [
        pytest.param(client_side(OTHER, AUTHORITY, "engine.test"), id="we do not know its issuer"),
        pytest.param(client_side(AUTHORITY, AUTHORITY, "other.test"), id="it is another"),
        pytest.param(client_side(AUTHORITY, AUTHORITY, ""), id="it is not that of the address"),
    ],
)
async def test_a_certificate_that_is_not_accepted_is_told_as_such(tls: Tls) -> None:
    async with FakeEngine(server_side()) as fake:
        engine = Engine(fake.address, tls)
        with pytest.raises(TlsFailed):
            await engine.ping()
        await engine.close()

    assert fake.asked == []


@pytest.mark.parametrize(
    "issuer",
    [pytest.param(OTHER, id="it does not know ours"), pytest.param(None, id="we have none")],
)
async def test_an_engine_that_does_not_accept_us_says_so_late(issuer: trustme.CA | None) -> None:
    """In TLS 1.3 our handshake is over by then, and what it says may be lost with the socket.

    asyncio's own server would not say it at all.
    """

    def refuse() -> None:
        # aiohttp asks again where a GET is cut off.
        for _ in range(2):
            taken, _ = listener.accept()
            with taken, pytest.raises(ssl.SSLError):
                server_side().wrap_socket(taken, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        engine = Engine(
            f"tcp://127.0.0.1:{listener.getsockname()[1]}",
            client_side(AUTHORITY, issuer, "engine.test"),
        )
        refusing = asyncio.create_task(asyncio.to_thread(refuse))
        with pytest.raises(Unreachable):
            await engine.ping()
        await refusing
        await engine.close()


async def test_an_engine_without_tls_is_not_spoken_to_in_plain_text() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(5))
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()

    heard: list[bytes] = []
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    engine = Engine(f"tcp://127.0.0.1:{port}", client_side(AUTHORITY, AUTHORITY, "engine.test"))
    with pytest.raises(TlsFailed):
        await engine.ping()
    await engine.close()
    server.close()

    assert [first[:1] for first in heard] == [b"\x16"], "A TLS record, and nothing else."
