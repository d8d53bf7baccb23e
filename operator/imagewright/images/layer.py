"""A layer's bytes: unpacked whatever it is packed by, and packed with both of its digests."""

import gzip
import hashlib
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, cast

import zstandard

from imagewright.images.flatten import MOST_ENTRIES, Tree, merge
from imagewright.images.tar import BadLayer

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
PIECE = 1 << 20
"""Bytes unpacked at once: however tightly a layer is packed, no more than that is in memory."""
MOST_BYTES = 64 << 30
"""Of all the layers of one image, unpacked: more than any has, and less than a bomb."""
LEVEL = 6
"""Of compression, as other builders choose it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is too much for one image: a bomb, and not what people build."""

    entries: int = MOST_ENTRIES
    """Of all layers above the base."""
    unpacked: int = MOST_BYTES
    """Bytes of all of them, unpacked."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed layer. `diff_id` is the digest of what is in it, unpacked; size in bytes."""

    digest: str
    diff_id: str
    size: int


class Unpacking:
    """Unpacks a layer while it comes, by its first bytes: gzip, zstd or plain.

    `most` is how many bytes may come out. Every method blocks and raises BadLayer for what cannot
    be unpacked, or is too much.
    """

    def __init__(self, into: IO[bytes], most: int) -> None:
        self._out = _Hashed(into, most)
        self._first, self._unpack = b"", cast("_Unpack | None", None)

    @property
    def size(self) -> int:
        """Bytes that came out so far."""
        return self._out.size

    @property
    def diff_id(self) -> str:
        """The digest of what came out so far."""
        return self._out.digest

    def feed(self, piece: bytes) -> None:
        """The next piece."""
        if self._unpack is None:
            self._first += piece
            if len(self._first) < len(ZSTD):
                return
            piece, self._unpack = self._first, _unpacker(self._first, self._out)
        try:
            self._unpack(piece)
        except (zlib.error, zstandard.ZstdError) as error:
            raise BadLayer(f"a layer cannot be unpacked: {error}") from error

    def finish(self, diff_id: str) -> None:
        """There are no more pieces: all that came out has that digest, or the layer is damaged."""
        if self._unpack is None:
            self._out.write(self._first)
        if self.diff_id != diff_id:
            raise BadLayer(
                "a layer does not hold what the image's configuration says: it breaks off, or is "
                f"another one ({self.diff_id} and not {diff_id})"
            )


_Unpack = Callable[[bytes], object]


def _unpacker(first: bytes, out: "_Hashed") -> _Unpack:
    if first.startswith(GZIP):
        return _Gzip(out).write
    if first.startswith(ZSTD):
        return zstandard.ZstdDecompressor().stream_writer(out.stream, write_size=PIECE).write
    return out.write


class _Gzip:
    """Gzip of one member or many: layers that can be read lazily have one for each file."""

    def __init__(self, out: "_Hashed") -> None:
        self._out = out
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def write(self, piece: bytes) -> None:
        """Unpack it, and write what comes out in pieces of bounded size."""
        full = False
        while piece or full:
            if self._member.eof:
                self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            data = self._member.decompress(piece, PIECE)
            self._out.write(data)
            # Where all was taken in there may still be something to come out.
            full = len(data) == PIECE and not self._member.eof
            piece = self._member.unused_data or self._member.unconsumed_tail


def packed(
    tree: Tree, layers: Sequence[IO[bytes]], into: IO[bytes], stop: threading.Event
) -> Packed:
    """What the tree made of the layers, plain tars, as one layer in another file. Blocks.

    Raises BadLayer; also soon after `stop` is set, which is how a thread is told that nobody waits
    for it any more.
    """
    outer = _Hashed(into, MOST_BYTES)
    with gzip.GzipFile(
        filename="", mode="wb", compresslevel=LEVEL, fileobj=outer.stream, mtime=0
    ) as packing:
        inner = _Hashed(packing, MOST_BYTES, stop)
        merge(tree, layers, inner.stream)
    into.flush()
    return Packed(outer.digest, inner.digest, outer.size)


class _Hashed:
    """A file that is written to, with the digest and number of the bytes, and bounds."""

    def __init__(
        self, file: IO[bytes] | gzip.GzipFile, most: int, stop: threading.Event | None = None
    ) -> None:
        self._file, self._hash, self.size = file, hashlib.sha256(), 0
        self._most, self._stop = most, stop

    @property
    def stream(self) -> IO[bytes]:
        """This, as what writes to it wants to see it."""
        return cast("IO[bytes]", self)

    @property
    def digest(self) -> str:
        """Of what was written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: bytes) -> int:
        """Write and count. Raises BadLayer where it is too much, or nobody waits for it."""
        self.size += len(data)
        if self.size > self._most:
            raise BadLayer(f"the layers hold more than {self._most >> 20} MiB")
        if self._stop and self._stop.is_set():
            raise BadLayer("nobody waits for them any more")
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """As files have it."""
        self._file.flush()
