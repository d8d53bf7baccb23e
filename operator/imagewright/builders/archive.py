"""A context as the tar stream that an engine's classic builder takes.

An engine applies no .dockerignore to what it is sent, so it is applied here; what is sent is owned
by root, as the engine's own command line has it. The Dockerfile and the ignore file are sent even
where they are ignored: the engine needs them, and then keeps them out of the context by itself.
"""

import asyncio
import stat
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial

from imagewright.clients.buildkit.patterns import Patterns, parse_ignore_file
from imagewright.clients.buildkit.proto.fsutil_pb2 import Stat
from imagewright.clients.buildkit.trees import Tree, vanished
from imagewright.clients.buildkit.walk import (
    GO_BITS,
    GO_TYPE,
    SPECIAL_BITS,
    Request,
    is_file,
    walk,
)

CHUNK = 1 << 20
IGNORE_FILE = ".dockerignore"
OWN_DOCKERFILE = ".imagewright.Dockerfile"
"""Where a Dockerfile that is no file of the source is put."""
TAR_TYPES = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
}
TYPE_OF_GO = {GO_BITS[kind] & GO_TYPE: TAR_TYPES[kind] for kind in TAR_TYPES}


async def packed(tree: Tree, dockerfile: str, inline: str = "") -> AsyncIterator[bytes]:
    """The tree as a tar in pieces of about 1 MiB, with `inline` in it as the Dockerfile.

    Raises OSError for what cannot be read, PatternError for a bad line of the ignore file.
    """
    pieces = await asyncio.to_thread(_pieces, tree, dockerfile, inline.encode())
    while piece := await asyncio.to_thread(_gathered, pieces):
        yield piece


def ignored(tree: Tree, dockerfile: str) -> list[str]:
    """The lines of the Dockerfile's own ignore file, or of the context's; none without one."""
    for path in (f"{dockerfile}.dockerignore", IGNORE_FILE):
        try:
            with tree.open(path) as file:
                return parse_ignore_file(file.read().decode(errors="replace"))
        except OSError as error:
            if not vanished(error):
                raise
    return []


def _pieces(tree: Tree, dockerfile: str, inline: bytes) -> Iterator[bytes]:
    lines = ignored(tree, dockerfile)
    if inline:
        hidden = [*lines, IGNORE_FILE, OWN_DOCKERFILE]
        return _with_dockerfile(_entries(tree, [*lines, IGNORE_FILE]), hidden, inline)
    # An exception for what the engine itself must read; it leaves the two out of the context.
    spared = [f"!{path}" for path in (dockerfile, IGNORE_FILE)] if lines else []
    return _ended(_entries(tree, [*lines, *spared]))


def _with_dockerfile(
    entries: Iterator[bytes], hidden: Sequence[str], inline: bytes
) -> Iterator[bytes]:
    yield from entries
    yield from _file(OWN_DOCKERFILE, inline)
    yield from _file(IGNORE_FILE, "\n".join(hidden).encode())
    yield from _ended(iter(()))


def _ended(entries: Iterator[bytes]) -> Iterator[bytes]:
    yield from entries
    yield b"\0" * 2 * tarfile.BLOCKSIZE


def _entries(tree: Tree, lines: Sequence[str]) -> Iterator[bytes]:
    Patterns(lines)
    for found in walk(tree, Request(excludes=lines)):
        info = _info(found)
        if info.type != tarfile.REGTYPE:
            yield _header(info)
            continue
        try:
            file = tree.open(found.path)
        except OSError as error:
            if vanished(error):
                continue
            raise
        with file:
            yield _header(info)
            yield from _content(iter(partial(file.read, CHUNK), b""), info.size)


def _content(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Exactly `size` bytes, padded to a block: a file that changes meanwhile must not shift it."""
    left = size
    for chunk in chunks:
        yield chunk[:left]
        left -= len(chunk[:left])
        if not left:
            break
    yield b"\0" * (left + -size % tarfile.BLOCKSIZE)


def _file(name: str, content: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.mode, info.size = 0o644, len(content)
    yield _header(info)
    yield from _content(iter((content,)), len(content))


def _info(found: Stat) -> tarfile.TarInfo:
    info = tarfile.TarInfo(found.path)
    info.mode = found.mode & 0o777 | sum(
        bit for bit, meaning in SPECIAL_BITS.items() if found.mode & meaning
    )
    info.mtime = found.modTime // 10**9
    info.linkname = found.linkname
    info.devmajor, info.devminor = found.devmajor, found.devminor
    if not is_file(found.mode):
        info.type = TYPE_OF_GO[found.mode & GO_TYPE]
    elif found.linkname:
        info.type = tarfile.LNKTYPE
    else:
        info.size = found.size
    return info


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _gathered(pieces: Iterator[bytes]) -> bytes:
    """The next pieces, together about one chunk; empty at the end."""
    held = bytearray()
    for piece in pieces:
        held += piece
        if len(held) >= CHUNK:
            break
    return bytes(held)
