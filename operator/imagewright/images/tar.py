"""Entries of a layer's tar, found without unpacking what they hold.

The library's reader is not used: it reads an extended header whole, however long it says it is,
takes a broken one for the end, and searches each for a word in a time that grows with the square
of its length (CVE-2024-6232), all of which a layer may be made for. The forms are those of POSIX
(ustar, pax) and of GNU tar, as Go's archive/tar reads them, which most engines unpack with.
"""

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

BLOCK = 512
MOST_HEADER = 1 << 20
"""Bytes of one extended header, as Go's reader has it: names and attributes are shorter."""
MOST_NAME = 4096
"""Bytes, as Linux has it."""
MOST_HEADERS = 4
"""Extended headers before one entry: pax, and GNU's two for long names, are three."""
FILES, LINK, FOLDER, SPARSE = b"\x007S0", b"1", b"5", b"S"
PLAIN = b"123456"
"""Kinds without content, whatever their size says."""
PAX, GLOBAL, LONG_NAME, LONG_LINK = b"x", b"g", b"L", b"K"
DAMAGED = "a layer cannot be read: it is no tar, or a header is damaged"

Records = tuple[tuple[bytes, bytes], ...]
"""The pax attributes of an entry, in their order: the map of a sparse file repeats its keys."""

HIDDEN = ".wh."
"""How the name begins that hides another in the layers below."""
OPAQUE = ".wh..wh..opq"
"""The name that hides all that its folder holds in the layers below."""


class BadLayer(Exception):
    """The layers cannot be merged; the text says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry and where it stands, in bytes from the beginning.

    `start` is that of its first header, `at` of its own block, `data` of its content, `end` of
    what follows the content.
    """

    name: str
    kind: bytes
    target: str
    start: int
    at: int
    data: int
    end: int
    block: bytes
    records: Records

    @property
    def is_file(self) -> bool:
        """Whether it holds a file's content."""
        return self.kind in FILES and not self.is_folder

    @property
    def is_folder(self) -> bool:
        """A folder; in the oldest form it is a file whose name ends so."""
        return self.kind == FOLDER or (self.kind == b"\0" and self.name.endswith("/"))


class Reader:
    """Reads entries by their place in a file. Blocks. Raises BadLayer, and OSError of the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self._length = file.seek(0, 2)

    def entry(self, offset: int) -> Entry | None:
        """The entry whose first header is there, or after global headers; None at the end."""
        start, long, records = offset, dict[bytes, str](), Records()
        for _ in range(MOST_HEADERS + 1):
            block = self._block(offset)
            if block is None:
                if offset != start:
                    raise BadLayer("a layer ends in the middle of an entry")
                return None
            kind, size = block[156:157], number(block[124:136])
            if kind not in (PAX, GLOBAL, LONG_NAME, LONG_LINK):
                return self._own(start, offset, block, (long, records))
            body = self._body(offset + BLOCK, size)
            offset += BLOCK + padded(size)
            if kind == PAX:
                records = parsed(body)
            elif kind != GLOBAL:
                long[kind] = text(body.rstrip(b"\0"))
            elif not long and not records:
                # Engines pass over it, and so do we: it says nothing of a file.
                start = offset
        raise BadLayer(f"a layer has more than {MOST_HEADERS} headers before an entry")

    def _own(
        self,
        start: int,
        at: int,
        block: bytes,
        said: tuple[dict[bytes, str], Records],
    ) -> Entry:
        long, records = said
        kind, data = block[156:157], at + BLOCK
        if kind not in PLAIN + FILES:
            raise BadLayer(f"a layer has an entry of the unknown kind {kind!r}")
        last = dict(records)
        name = long.get(LONG_NAME) or _path(block, last)
        target = long.get(LONG_LINK) or text(last.get(b"linkpath") or field(block[157:257]))
        size = 0 if kind in PLAIN else _size(block, last)
        if kind == SPARSE:
            data = self._after_map(data, more=block[482] != 0)
        if data + size > self._length:
            raise BadLayer(f"a layer ends in the middle of {name!r}")
        return Entry(name, kind, target, start, at, data, data + size, block, records)

    def _after_map(self, offset: int, *, more: bool) -> int:
        """Where the content begins: GNU's map of holes may go on in blocks of its own."""
        begin = offset
        while more:
            self.file.seek(offset)
            part = self.file.read(BLOCK)
            if len(part) < BLOCK or offset - begin > MOST_HEADER:
                raise BadLayer("a layer has a sparse file without an end")
            more, offset = part[504] != 0, offset + BLOCK
        return offset

    def _block(self, offset: int) -> bytes | None:
        self.file.seek(offset)
        block = self.file.read(BLOCK)
        if not block or block == bytes(BLOCK):
            return None
        if len(block) < BLOCK:
            raise BadLayer("a layer cannot be read: it ends in the middle of a header")
        if number(block[148:156]) != checksum(block):
            raise BadLayer(DAMAGED)
        return block

    def _body(self, offset: int, size: int) -> bytes:
        if size > MOST_HEADER:
            raise BadLayer(f"a layer has a header of more than {MOST_HEADER >> 10} KiB")
        self.file.seek(offset)
        body = self.file.read(size)
        if len(body) < size:
            raise BadLayer("a layer cannot be read: it ends in the middle of a header")
        return body


def entries_of(file: IO[bytes]) -> Iterator[Entry]:
    """All entries in order. Blocks. Raises BadLayer."""
    reader, offset = Reader(file), 0
    while entry := reader.entry(offset):
        yield entry
        offset = entry.data + padded(entry.end - entry.data)


def clean(name: str) -> str:
    """A name without what does not matter; from the root or not, engines read it the same.

    Raises BadLayer where it leads out of the image.
    """
    if ".." in name.split("/"):
        raise BadLayer(f"a layer has the name {name!r}, which leads out of the image")
    return posixpath.normpath("/" + name).lstrip("/")


def parsed(body: bytes) -> Records:
    """The records of a pax header. Raises BadLayer."""
    records, position = list[tuple[bytes, bytes]](), 0
    while position < len(body):
        blank = body.find(b" ", position, position + 12)
        length = _digits(body[position : max(blank, position)])
        record = body[blank + 1 : position + length]
        key, equals, value = record.partition(b"=")
        if position + length > len(body) or not record.endswith(b"\n") or not equals:
            raise BadLayer("a layer has a damaged pax header")
        records.append((key, value[:-1]))
        position += length
    return tuple(records)


def number(raw_field: bytes) -> int:
    """A number of a header: octal, or in GNU's way binary. Raises BadLayer where it is none."""
    if raw_field[0] & 0x80:
        value = int.from_bytes(bytes([raw_field[0] & 0x7F]) + raw_field[1:], "big")
        if raw_field[0] & 0x40:
            raise BadLayer("a layer has an entry of negative size")
        return value
    digits = field(raw_field).strip(b" ")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise BadLayer(DAMAGED) from None


def checksum(block: bytes) -> int:
    """The sum of a header's bytes, its own field taken for blanks."""
    return sum(block[:148]) + 8 * 0x20 + sum(block[156:])


def padded(size: int) -> int:
    """Whole blocks for so many bytes."""
    return -(-size // BLOCK) * BLOCK


def text(name: bytes) -> str:
    """A name, which may hold bytes that are no text. Raises BadLayer for what no name holds."""
    if len(name) > MOST_NAME or b"\0" in name:
        raise BadLayer(f"a layer has a name of more than {MOST_NAME} bytes, or with a zero in it")
    return name.decode(errors="surrogateescape")


def raw(name: str) -> bytes:
    """The bytes of a name."""
    return name.encode(errors="surrogateescape")


def field(value: bytes) -> bytes:
    """A text up to the zero that ends it."""
    return value.partition(b"\0")[0]


def _path(block: bytes, records: Mapping[bytes, bytes]) -> str:
    said = records.get(b"GNU.sparse.name") or records.get(b"path")
    if said:
        return text(said)
    name = field(block[:100])
    # Only POSIX has the rest of a long name here; GNU has times.
    prefix = field(block[345:500]) if block[257:263] == b"ustar\0" else b""
    return text(prefix + b"/" + name if prefix else name)


def _size(block: bytes, records: Mapping[bytes, bytes]) -> int:
    return _digits(records[b"size"]) if records.get(b"size") else number(block[124:136])


def _digits(value: bytes) -> int:
    if not value.isdigit() or len(value) > 19:
        raise BadLayer("a layer has a damaged pax header")
    return int(value)
