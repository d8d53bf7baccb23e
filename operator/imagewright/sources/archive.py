"""A compressed stream as a plain one that meets a bound, before it fills a disk or memory."""

import bz2
import gzip
import lzma
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import zstandard

GZIP, BZIP2, XZ, ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
USTAR, USTAR_AT = b"ustar", 257
PIECE = 64 << 10
WINDOW = 128 << 20
"""Bytes of memory that a stream may ask of a decompressor."""
SMALL = 16 << 20
"""Bytes. Below this no ratio is looked at: a small file of zeros shrinks to nothing."""
BROKEN = (zlib.error, lzma.LZMAError, EOFError, zstandard.ZstdError, gzip.BadGzipFile)
"""What decompressors raise; bz2 raises OSError."""


class Unpackable(Exception):
    """The archive is broken, too large, or not harmless. The text is a sentence."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What a source may come to. Bytes, but for `ratio` (out by in), `files` and `seconds`."""

    wire: int = 512 << 20
    out: int = 2 << 30
    ratio: int = 200
    files: int = 100_000
    seconds: float = 600


class Stream(Protocol):
    """What can be read piece by piece."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


class _Xz:
    """LZMAFile with a bound on its memory, which its dictionary may be made to exceed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inner = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW)
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        while True:
            if self._inner.eof:
                # Streams may follow one another; zeros between them are padding.
                self._rest = self._inner.unused_data.lstrip(b"\0") or self._file.read(PIECE)
                if not self._rest.strip(b"\0"):
                    return b""
                self._inner = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW)
            elif self._inner.needs_input and not self._rest:
                self._rest = self._file.read(PIECE)
                if not self._rest:
                    raise EOFError("it ends too early")
            data, self._rest = self._inner.decompress(self._rest, size), b""
            if data:
                return data


class Bounded:
    """The plain bytes of a file in whichever compression it is, counted.

    `allow` bytes may be read until it is set anew, so that a header cannot fill the memory.
    """

    def __init__(self, file: BinaryIO, caps: Caps) -> None:
        self._file, self._caps = file, caps
        self._stream = _opened(file)
        self._out = 0
        self.allow = caps.out

    def read(self, size: int = PIECE, /) -> bytes:
        """Up to `size` bytes. Raises Unpackable."""
        try:
            data = self._stream.read(min(size, PIECE))
        except (*BROKEN, OSError) as error:
            raise Unpackable(f"The archive cannot be unpacked: {error}.") from error
        self._out += len(data)
        self.allow -= len(data)
        self._check()
        return data

    def _check(self) -> None:
        if self._out > self._caps.out:
            raise Unpackable(
                f"The archive unpacks to more than {self._caps.out >> 20} MiB, which is the limit."
            )
        if self._out > SMALL and self._out > self._caps.ratio * max(self._file.tell(), 1):
            raise Unpackable(
                f"The archive unpacks to more than {self._caps.ratio} times its size: that is no "
                "context of a build."
            )
        if self.allow < 0:
            raise Unpackable("The archive has a header that is larger than any name can be.")


def is_archive(head: bytes) -> bool:
    """Whether a file that begins like that is one that we unpack."""
    return head.startswith((GZIP, BZIP2, XZ, ZSTD)) or head[USTAR_AT:].startswith(USTAR)


def _opened(file: BinaryIO) -> Stream:
    head = file.read(len(XZ))
    file.seek(0)
    if head.startswith(GZIP):
        return gzip.GzipFile(fileobj=file)
    if head.startswith(BZIP2):
        return bz2.BZ2File(file)
    if head.startswith(XZ):
        return _Xz(file)
    if head.startswith(ZSTD):
        reader = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        return reader.stream_reader(file, read_across_frames=True, closefd=False)
    return file
