"""A proxy before a registry that can slow down, refuse, break off or steal what goes through."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from tests.support.serving import serve

HOP = {"connection", "content-length", "transfer-encoding"}
NOTHING: Mapping[str, str] = MappingProxyType({})
PIECE = 1024
NO_LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER of a socket whose end is a reset."""
Refusal = Callable[[web.Request], int]
"""The status that a request is refused with; 0: it is passed on."""


def nothing(_: web.Request) -> int:
    """Nothing is refused."""
    return 0


def manifests(request: web.Request) -> int:
    """Every manifest is, as by a registry that wants to be asked less."""
    return 429 if request.method == "PUT" and "/manifests/" in request.path else 0


class RegistryProxy:
    """Passes everything on to the registry at `host`; speaks plain http on both sides."""

    def __init__(self, host: str) -> None:
        self._upstream = f"http://{host}"
        self.bytes_a_second: float | None = None
        """How fast what is uploaded is taken; None: at once."""
        self.refuse: Refusal = nothing
        """May be set at any time, as all of these."""
        self.resetting = False
        """Reset the connection of every upload after half of its bytes."""
        self.thief: tuple[bytes, str] | None = None
        """A manifest and its type, which every tag is moved to once it was pushed."""
        self.seen: list[str] = []
        """Method and path of every request."""
        self.taken = 0
        """Bytes of uploads."""
        self.refused = self.resets = 0
        """How many requests were refused, and how many uploads reset."""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self._runner, self.host = await serve(self._pass)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(f"{request.method} {request.path}")
        if status := self.refuse(request):
            self.refused += 1
            return web.Response(status=status)
        try:
            answer = await self._ask(request, self._body(request) if request.body_exists else None)
        except (aiohttp.ClientError, web.RequestPayloadError, ConnectionError):
            # Who pushed is gone.
            return web.Response(status=502)
        tagging = request.method == "PUT" and "/manifests/" in request.path
        if tagging and self.thief and "sha256:" not in request.path:
            content, kind = self.thief
            await self._ask(request, content, {"Content-Type": kind})
        return answer

    async def _body(self, request: web.Request) -> AsyncIterator[bytes]:
        left = (request.content_length or 0) // 2 if self.resetting else None
        async for piece in request.content.iter_chunked(PIECE):
            if left is not None and (left := left - len(piece)) < 0:
                self._reset(request)
            self.taken += len(piece)
            if self.bytes_a_second:
                await asyncio.sleep(len(piece) / self.bytes_a_second)
            yield piece

    def _reset(self, request: web.Request) -> None:
        """Break its connection off. Raises ConnectionResetError."""
        self.resets += 1
        if request.transport is not None:
            own = request.transport.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            request.transport.abort()
        raise ConnectionResetError("an upload was reset after half of its bytes")

    async def _ask(
        self,
        request: web.Request,
        body: AsyncIterator[bytes] | bytes | None,
        more: Mapping[str, str] = NOTHING,
    ) -> web.Response:
        # The registry says where uploads go on by the Host that it is asked for: ours. Of a body
        # that is handed on piece by piece the length is said as it was.
        kept = HOP - {"content-length"} if body is not None and not more else HOP
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in kept
        }
        async with self._session.request(
            request.method,
            self._upstream + request.raw_path,
            headers={**headers, **more},
            data=body,
            allow_redirects=False,
        ) as answer:
            content = await answer.read()
            told = {
                name: value for name, value in answer.headers.items() if name.lower() not in HOP
            }
            if request.method == "HEAD":
                told["Content-Length"] = answer.headers.get("Content-Length", "0")
            return web.Response(status=answer.status, headers=told, body=content)
