"""An engine of a hundred lines that answers as a test says, and breaks off where it says so."""

import asyncio
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

PING = {"Api-Version": "1.51", "Builder-Version": "2", "Docker-Experimental": "true"}
FOREVER = b"\0forever"
"""A piece at which the answer stops, until the client goes."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `pieces` are chunks; `cut` closes the connection in place of the last one.

    An `early` answer is given before the body was read, and the body is left unread.
    """

    pieces: Sequence[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    early: bool = False


@dataclass(slots=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes = b""
    whole: bool = False
    """Whether the body has ended as it should."""


class FakeEngine:
    """Answers by the last part of the path. A path that is not told about is answered by 404."""

    def __init__(self, tls: ssl.SSLContext | None = None, **replies: Reply) -> None:
        self.replies = {"_ping": Reply(headers=PING), **replies}
        self.asked: list[Asked] = []
        self.gone = asyncio.Event()
        """Set once a client has left an answer that had no end."""
        self.heard = asyncio.Event()
        """Set once a request's body has begun to come."""
        self._tls = tls
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        if self._tls is None:
            self._folder = tempfile.TemporaryDirectory()
            path = Path(self._folder.name) / "engine.sock"
            self._server = await asyncio.start_unix_server(self._take, path)
            self.address = f"unix://{path}"
        else:
            self._server = await asyncio.start_server(self._take, "127.0.0.1", 0, ssl=self._tls)
            self.address = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._tls is None:
            self._folder.cleanup()

    @property
    def last(self) -> Asked:
        """The last request."""
        return self.asked[-1]

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await _head(reader)
            self.asked.append(asked)
            reply = self.replies.get(asked.path.rpartition("/")[2], Reply([b"no"], 404))
            if not reply.early:
                await self._body(reader, asked)
            await self._answer(reply, reader, writer)
        except (OSError, EOFError):
            return
        finally:
            writer.transport.close()

    async def _body(self, reader: asyncio.StreamReader, asked: Asked) -> None:
        if "chunked" not in asked.headers.get("transfer-encoding", ""):
            length = int(asked.headers.get("content-length", "0"))
            asked.body = await reader.readexactly(length)
            asked.whole = True
            return
        while size := int(await reader.readline(), 16):
            asked.body += await reader.readexactly(size)
            self.heard.set()
            await reader.readexactly(2)
        await reader.readexactly(2)
        asked.whole = True

    async def _answer(
        self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        lines = [f"HTTP/1.1 {reply.status} OK", "Transfer-Encoding: chunked"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        for piece in reply.pieces:
            if piece is FOREVER:
                await reader.read()
                self.gone.set()
                return
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        if not reply.cut:
            writer.write(b"0\r\n\r\n")
            await writer.drain()


async def _head(reader: asyncio.StreamReader) -> Asked:
    text = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = text.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {
        name.lower(): value.strip() for name, _, value in (ln.partition(":") for ln in lines)
    }
    parts = urlsplit(target)
    return Asked(method, parts.path, parse_qs(parts.query, keep_blank_values=True), headers)
