"""Requests to one engine, under the newest version of its API that both sides know."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from imagewright.clients.engine.address import Address, Tls
from imagewright.clients.engine.errors import EngineError, translate

CONNECT = 10.0
"""Seconds until a connection must stand."""
QUICK = 120.0
"""Seconds for an answer that takes no work. An engine under load is slow even then."""
LARGEST_ANSWER = 256 << 20
"""Bytes of an answer that is read as a whole."""

Query = Sequence[tuple[str, str]]
AddrInfo = tuple[socket.AddressFamily | int, socket.SocketKind | int, int, str, tuple[Any, ...]]


class Upload:
    """A body that is sent while it is made.

    If making it fails, the request has to break off, for the engine would take what it got for
    the whole; and the failure is the maker's, not the wire's.
    """

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = chunks
        self._sending = self._send()
        self._idle = asyncio.Event()
        self._idle.set()
        self.failure: Exception | None = None
        self.response: aiohttp.ClientResponse | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The chunks, for aiohttp to send; once."""
        return self._sending

    async def close(self) -> None:
        """Stop making it, once the request has ended: whatever is open for it gets closed."""
        await self._idle.wait()
        await self._sending.aclose()

    async def _send(self) -> AsyncGenerator[bytes]:
        self._idle.clear()
        try:
            async for chunk in self._chunks:
                self._idle.set()
                yield chunk
                self._idle.clear()
        except Exception as error:
            self.failure = error
            if self.response is not None:
                self.response.close()
            raise
        finally:
            if isinstance(self._chunks, AsyncGenerator):
                await self._chunks.aclose()
            self._idle.set()


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `seconds` until its answer has ended, None where nobody can say."""

    method: str
    path: str
    query: Query = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    upload: Upload | None = None
    seconds: float | None = QUICK

    @property
    def target(self) -> str:
        """The path with its query."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises EngineError where it is none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise EngineError(f"The engine sent no JSON: {self.body[:200]!r}.") from error


class Connection:
    """A way to one engine; each request goes over a socket of its own.

    So no request meets a socket that the engine has closed meanwhile, any number may run at once,
    and closing one stops what it began.
    """

    def __init__(self, address: Address, tls: Tls | None = None) -> None:
        self.address = address
        self.tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._running: set[aiohttp.ClientResponse] = set()

    async def close(self) -> None:
        """Break off what is running. The connection can be used again."""
        # aiohttp would close their sockets, and leave those waiting who read from them.
        for response in self._running:
            response.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def answer(self, request: Request) -> Answer:
        """Send it, and read the whole answer, whatever its status. Raises Unreachable."""
        async with self.open(request) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise EngineError("The engine's answer has no end.")
            return Answer(response.status, response.headers, bytes(body))

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Send it, and read the answer at leisure; leaving it early breaks the request off.

        Raises Unreachable, or what failed while the body was made.
        """
        upload = request.upload
        try:
            response = await self._send(await self._open(), request)
            self._running.add(response)
            try:
                yield response
            finally:
                self._running.discard(response)
                response.close()
        except (aiohttp.ClientError, OSError, EOFError) as error:
            if upload is not None and upload.failure is not None:
                raise upload.failure from None
            # Without the cause: aiohttp's texts hold the URL, and so the build arguments.
            raise translate(error) from None
        finally:
            if upload is not None:
                await upload.close()

    async def _send(
        self, session: aiohttp.ClientSession, request: Request
    ) -> aiohttp.ClientResponse:
        scheme = "https" if self.tls else "http"
        response = await session.request(
            request.method,
            URL(f"{scheme}://{self.address.authority}{request.target}", encoded=True),
            headers=request.headers,
            data=request.upload,
            timeout=aiohttp.ClientTimeout(total=request.seconds, sock_connect=CONNECT),
            server_hostname=(self.tls.server_name or None) if self.tls else None,
            allow_redirects=False,
        )
        if request.upload is not None:
            request.upload.response = response
        return response

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=await self._connector(),
                    auto_decompress=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                )
            return self._session

    async def _connector(self) -> aiohttp.BaseConnector:
        if self.address.path:
            return aiohttp.UnixConnector(self.address.path, force_close=True, limit=0)
        return aiohttp.TCPConnector(
            ssl=await self.tls.context() if self.tls else False,
            force_close=True,
            limit=0,
            socket_factory=lasting_socket,
        )


def lasting_socket(info: AddrInfo) -> socket.socket:
    """A socket that notices within two minutes that a peer is gone without a word.

    A build may be silent for hours, so no timeout of ours could tell.
    """
    family, kind, protocol, *_ = info
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    keep_alive(made)
    return made


def keep_alive(made: socket.socket) -> None:
    """Have the system ask the peer whether it is there, after 60 s of silence, every 15 s."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    # The same for what was sent and never acknowledged, in milliseconds.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000)
