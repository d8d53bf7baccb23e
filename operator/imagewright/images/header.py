"""Headers of a tar's entries, written anew: under another name, as a link, or to hide a name."""

from imagewright.images.tar import BLOCK, LINK, PAX, Entry, Records, checksum, padded, raw

OF_NAME = frozenset({b"path", b"linkpath", b"GNU.sparse.name", b"hdrcharset"})
OF_CONTENT = frozenset({b"size"})


def renamed(entry: Entry, path: str) -> bytes:
    """The headers of a file under another name, up to and with its own block."""
    kept = [one for one in entry.records if one[0] not in OF_NAME]
    names = [(b"path", raw(path))]
    if any(key.startswith(b"GNU.sparse.") for key, _ in kept):
        names.append((b"GNU.sparse.name", raw(path)))
    records = (*kept, *names)
    return _pax(records) + _patched(entry.block, path)


def linked(entry: Entry, path: str, target: str) -> bytes:
    """Another name of `target`, which is the file of that entry or has its attributes.

    Engines give the attributes of a link's entry to the file, so they are all there.
    """
    kept = [
        (key, value)
        for key, value in entry.records
        if key not in OF_NAME | OF_CONTENT and not key.startswith(b"GNU.sparse.")
    ]
    records = (*kept, (b"path", raw(path)), (b"linkpath", raw(target)))
    block = bytearray(entry.block)
    block[124:136] = b"%011o\0" % 0
    block[156:157] = LINK
    block[157:257] = _field(target)
    # Only the fields that every form has: GNU keeps the map of holes where ustar has a prefix.
    block[257:265] = b"ustar\x0000"
    block[345:512] = bytes(167)
    return _pax(records) + _patched(bytes(block), path)


def marker(path: str) -> bytes:
    """An empty file, which says that something is hidden."""
    block = bytearray(BLOCK)
    block[100:108], block[108:116], block[116:124] = b"0000600\0", b"0000000\0", b"0000000\0"
    block[124:136] = block[136:148] = b"%011o\0" % 0
    block[156:157], block[257:265] = b"0", b"ustar\x0000"
    head = b"" if _field(path).rstrip(b"\0") == raw(path) else _pax(((b"path", raw(path)),))
    return head + _patched(bytes(block), path)


def _pax(records: Records) -> bytes:
    body = b"".join(_record(key, value) for key, value in records)
    block = bytearray(BLOCK)
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136], block[136:148] = b"%011o\0" % len(body), b"%011o\0" % 0
    block[156:157], block[257:265] = PAX, b"ustar\x0000"
    return _patched(bytes(block), "PaxHeaders.0/entry") + body.ljust(padded(len(body)), b"\0")


def _record(key: bytes, value: bytes) -> bytes:
    """A record begins with its own length, that number with it."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _patched(block: bytes, path: str) -> bytes:
    """The block with another name, and its sum made right."""
    made = bytearray(block)
    made[:100] = _field(path)
    if block[257:263] == b"ustar\0":
        made[345:500] = bytes(155)
    made[148:156] = b"%06o\0 " % checksum(bytes(made))
    return bytes(made)


def _field(name: str) -> bytes:
    """What old readers see of a name: at most its first 100 bytes, in ASCII."""
    return name.encode("ascii", "replace")[:100].ljust(100, b"\0")
