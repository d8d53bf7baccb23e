"""The session's FileSync service: sends the trees that a daemon asks for, by name.

The protocol is fsutil's (send.go): we describe every entry in a STAT, the daemon asks for contents
with REQ while we are still at it, and we answer with DATA; FIN on both sides ends it.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from itertools import islice
from typing import BinaryIO
from urllib.parse import unquote_plus

from google.protobuf.message import DecodeError

from imagewright.clients.buildkit.calls import CallFailed, Code, Handler, Stream
from imagewright.clients.buildkit.proto.fsutil_pb2 import Packet
from imagewright.clients.buildkit.trees import Tree, vanished
from imagewright.clients.buildkit.walk import Request, is_file, walk
from imagewright.clients.buildkit.wire import data_packet

DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
CHUNK = 512 << 10
"""Bytes of content in one message. Larger ones gain nothing; old daemons refuse above 4 MiB."""
LOAD = 1 << 20
"""Bytes that are read in one visit to a thread."""
FILES = 1024
"""Files that are read in one visit to a thread, and entries that are described."""
END_OF_WALK = b""
"""A STAT without a stat: all its fields have their defaults, so it is empty on the wire."""


class FileSync:
    """Serves trees by the names that a build uses for them (`context`, `dockerfile`)."""

    def __init__(self, trees: Mapping[str, Tree]) -> None:
        self._trees = dict(trees)

    @property
    def shared_key(self) -> str:
        """For `Session(shared_key=...)`: lets the daemon ask only for what has changed."""
        keys = "\n".join(f"{name}={tree.key}" for name, tree in sorted(self._trees.items()))
        return sha256(keys.encode()).hexdigest()

    def handlers(self) -> Mapping[str, Handler]:
        """The served methods."""
        return {DIFF_COPY: self._diff_copy}

    async def _diff_copy(self, stream: Stream) -> None:
        name = next(iter(values(stream, "dir-name")), "")
        if name not in self._trees:
            raise CallFailed(Code.NOT_FOUND, f"This client has no directory {name!r}.")
        request = Request(
            includes=values(stream, "include-patterns"),
            excludes=values(stream, "exclude-patterns"),
            follow=values(stream, "followpaths"),
        )
        await _Transfer(stream, self._trees[name], request).run()


def values(stream: Stream, key: str) -> Sequence[str]:
    """All values of one key of the metadata.

    Daemons since v0.12 escape the values where one is not ASCII, and say so in a key of its own.
    """
    found = stream.metadata.get(key, ())
    if "1" in stream.metadata.get(f"{key}-encoded", ()):
        return [unquote_plus(value, errors="surrogateescape") for value in found]
    return found


class _Transfer:
    """One tree on its way. Three tasks: one describes, one listens, one answers."""

    def __init__(self, stream: Stream, tree: Tree, request: Request) -> None:
        self._stream = stream
        self._packets = _packets(tree, request)
        self._loader = _Loader(tree)
        self._files: dict[int, str] = {}
        self._wanted = asyncio.Event()
        self._finished = False

    async def run(self) -> None:
        """Send it all. A failure of any task is the failure of the call: the others would hang."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._describe())
                tasks.create_task(self._listen())
                tasks.create_task(self._answer())
        except ExceptionGroup as group:
            failure = group.exceptions[0]
            reason = str(failure).encode(errors="replace")
            error = Packet(type=Packet.PACKET_ERR, data=reason)
            await self._stream.write(error.SerializeToString())
            raise failure from None
        finally:
            self._loader.close()

    async def _describe(self) -> None:
        count = 0
        while batch := await asyncio.to_thread(lambda: list(islice(self._packets, FILES))):
            for number, (_, path) in enumerate(batch, count):
                if path is not None:
                    self._files[number] = path
            count += len(batch)
            await self._stream.write(*(packet for packet, _ in batch))
        await self._stream.write(END_OF_WALK)

    async def _listen(self) -> None:
        while (message := await self._stream.read()) is not None:
            packet = _packet(message)
            if packet.type == Packet.PACKET_FIN:
                self._finished = True
                self._wanted.set()
                await self._stream.write(Packet(type=Packet.PACKET_FIN).SerializeToString())
                return
            if packet.type == Packet.PACKET_ERR:
                reason = packet.data.decode(errors="replace")
                raise CallFailed(Code.ABORTED, f"The daemon gave up: {reason}")
            if packet.type == Packet.PACKET_REQ:
                self._want(packet.ID)
        raise CallFailed(Code.ABORTED, "The daemon ended the transfer before it was complete.")

    def _want(self, number: int) -> None:
        path = self._files.pop(number, None)
        if path is None:
            raise CallFailed(Code.INVALID_ARGUMENT, f"Entry {number} is no file, or was sent.")
        self._loader.todo.append((number, path))
        self._wanted.set()

    async def _answer(self) -> None:
        while not self._finished:
            await self._wanted.wait()
            self._wanted.clear()
            while packets := await asyncio.to_thread(self._loader.load):
                await self._stream.write(*packets)


class _Loader:
    """Reads the files in `todo`, in order, some of them at a time; others may append meanwhile."""

    def __init__(self, tree: Tree) -> None:
        self.todo: deque[tuple[int, str]] = deque()
        self._tree = tree
        self._current: tuple[int, BinaryIO] | None = None
        self._loading = self._closed = False

    def load(self) -> list[bytes]:
        """The next packets; none where there is nothing to do. Blocks."""
        self._loading = True
        try:
            return list(self._load())
        finally:
            self._loading = False
            if self._closed:
                self._leave()

    def close(self) -> None:
        """Leave the file that is being read, at once or when the thread that reads it is done."""
        self._closed = True
        if not self._loading:
            self._leave()

    def _load(self) -> Iterator[bytes]:
        size = files = 0
        while size < LOAD and files < FILES and not self._closed:
            if self._current is None:
                if not self.todo:
                    return
                self._current = self._enter(*self.todo.popleft())
            number, file = self._current
            chunk = file.read(CHUNK)
            yield data_packet(number, chunk)
            size += len(chunk)
            if not chunk:
                files += 1
                self._leave()

    def _enter(self, number: int, path: str) -> tuple[int, BinaryIO]:
        try:
            return number, self._tree.open(path)
        except OSError as error:
            if vanished(error):
                return number, BytesIO()
            raise

    def _leave(self) -> None:
        if self._current is not None:
            self._current[1].close()
            self._current = None


def _packets(tree: Tree, request: Request) -> Iterator[tuple[bytes, str | None]]:
    """A STAT packet for each entry, and its path where its content may be asked for."""
    for stat in walk(tree, request):
        packet = Packet(stat=stat).SerializeToString()
        yield packet, stat.path if is_file(stat.mode) else None


def _packet(message: bytes) -> Packet:
    try:
        return Packet.FromString(message)
    except DecodeError as error:
        raise CallFailed(Code.INVALID_ARGUMENT, "That is no packet of fsutil.") from error
