"""A connection to an engine that stops being HTTP/1.1, and carries BuildKit's gRPC after that."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from imagewright.clients.engine.address import Address, Tls
from imagewright.clients.engine.connection import CONNECT, QUICK, keep_alive
from imagewright.clients.engine.errors import EngineError, Unreachable, refusal, translate

GRPC, SESSION = "/grpc", "/session"
"""On the first we are gRPC's client; on the second the engine is, and calls what we offer."""
BUFFER = 1 << 20
"""Bytes that wait to be read before the sender is made to wait."""
LARGEST_REFUSAL = 64 << 10

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Upgraded:
    """Two ends of a connection that now speaks HTTP/2."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def close(self) -> None:
        """Close it, whatever state it is in."""
        self.writer.transport.abort()
        try:
            await self.writer.wait_closed()
        except OSError:
            return


async def upgrade(
    address: Address, tls: Tls | None = None, path: str = GRPC, headers: Headers = ()
) -> Upgraded:
    """Connect, and turn the connection into HTTP/2.

    Raises Unreachable, and Refused with the engine's status: a session's refusals are 400 (its id
    is taken), those of gRPC 500, and 404 comes from an engine that knows no such path any more.
    """
    for name, value in headers:
        if any(letter in name + value for letter in "\r\n\0"):
            raise ValueError(f"The header {name} cannot hold a line break.")
    try:
        async with asyncio.timeout(CONNECT):
            connected = await _connect(address, tls)
    except OSError as error:
        raise translate(error) from error
    try:
        async with asyncio.timeout(QUICK):
            await _switch(connected, _head(address, path, headers))
    except (OSError, EOFError) as error:
        await connected.close()
        raise translate(error) from error
    except BaseException:
        connected.writer.transport.abort()
        raise
    return connected


async def _connect(address: Address, tls: Tls | None) -> Upgraded:
    if address.path:
        return Upgraded(*await asyncio.open_unix_connection(address.path, limit=BUFFER))
    reader, writer = await asyncio.open_connection(
        address.host,
        address.port,
        limit=BUFFER,
        ssl=await tls.context() if tls else None,
        server_hostname=(tls.server_name or None) if tls else None,
    )
    keep_alive(writer.get_extra_info("socket"))
    return Upgraded(reader, writer)


def _head(address: Address, path: str, headers: Headers) -> bytes:
    lines: Iterable[str] = (
        f"POST {path} HTTP/1.1",
        f"Host: {address.authority}",
        "Connection: Upgrade",
        "Upgrade: h2c",
        "Content-Length: 0",
        *(f"{name}: {value}" for name, value in headers),
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


async def _switch(connected: Upgraded, head: bytes) -> None:
    connected.writer.write(head)
    await connected.writer.drain()
    try:
        answer = await connected.reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise EngineError("What answers there is no engine.") from error
    status = _status(answer)
    if status != HTTPStatus.SWITCHING_PROTOCOLS:
        raise refusal(status, await _body(connected.reader, answer))


def _status(answer: bytes) -> int:
    version, _, rest = answer.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise EngineError("What answers there is no engine.")
    return int(rest[:3])


async def _body(reader: asyncio.StreamReader, answer: bytes) -> bytes:
    """What a refusal says. An engine's are short and have a length."""
    for line in answer.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length" and value.strip().isdigit():
            return await reader.readexactly(min(int(value), LARGEST_REFUSAL))
    raise Unreachable("the engine refused the upgrade and does not say why")
