"""Every form of tar that layers come in is read, and what is written anew is read by others."""

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import IO, Any

import pytest

from imagewright.images.flatten import merge, tree_of
from imagewright.images.tar import (
    BLOCK,
    MOST_HEADER,
    MOST_NAME,
    BadLayer,
    Reader,
    checksum,
    parsed,
)

LONG = "/".join(["deep" * 10] * 8)
ODD = b"gr\xfc\xdfe".decode(errors="surrogateescape")
FORMS = {"ustar": tarfile.USTAR_FORMAT, "GNU": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def flat(*layers: bytes) -> bytes:
    files: list[IO[bytes]] = [io.BytesIO(data) for data in layers]
    into = io.BytesIO()
    merge(tree_of(files), files, into)
    return into.getvalue()


def written(*infos: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(b"x" * info.size))
    return buffer.getvalue()


def an_entry(name: str, kind: bytes = tarfile.REGTYPE, **more: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in more.items():
        setattr(info, key, value)
    return info


def seen(archive: bytes) -> dict[str, Any]:
    """What the library reads, by name."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {
            info.name: (
                *(info.type, info.mode, info.uid, info.gid, info.size, info.linkname),
                *(info.uname, info.gname, info.devmajor, info.devminor, float(info.mtime)),
                content.read() if info.isreg() and (content := opened.extractfile(info)) else b"",
            )
            for info in opened
            if not info.islnk()
        }


NAMES = {
    "a short name": "a",
    "a name in a folder": "a/b",
    "a name of a hundred bytes": "n" * 100,
    "a name that ustar splits": "p" * 90 + "/" + "n" * 90,
    "a name of a hundred bytes and more": "n" * 101,
    "a long path": LONG,
    "a name in UTF-8": "größe/日本",
    "a name that is no text": ODD,
    "a name with a blank and a line break": "a b\nc",
}


NOT_IN_USTAR = {"a long path", "a name of a hundred bytes and more"}
"""What ustar has no form for."""
NAMED = [
    pytest.param(name, form, id=f"{text} in {kind}")
    for text, name in NAMES.items()
    for kind, form in FORMS.items()
    if kind != "ustar" or text not in NOT_IN_USTAR
]


@pytest.mark.parametrize(("name", "form"), NAMED)
def test_a_name_is_kept_in_every_form(name: str, form: int) -> None:
    layer = written(
        an_entry(name, size=700, mode=0o4711, uid=1000, gid=1001, mtime=1700000000),
        an_entry("link", tarfile.SYMTYPE, linkname=LONG[:90]),
        form=form,
    )
    assert seen(flat(layer)) == seen(layer)


@pytest.mark.parametrize(("name", "form"), NAMED)
def test_a_file_whose_first_name_is_gone_gets_the_other(name: str, form: int) -> None:
    file = an_entry("first", size=700, mode=0o4711, uid=1000, uname="me", mtime=1700000000)
    layer = written(file, an_entry(name, tarfile.LNKTYPE, linkname="first"), form=form)
    merged = flat(layer, written(an_entry(".wh.first")))
    expected = seen(layer)["first"]
    assert seen(merged) == {name: expected, ".wh.first": seen(merged)[".wh.first"]}


@pytest.mark.row("seed-1")
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_link_says_all_that_its_file_does(form: int) -> None:
    # containerd gives a link's owner, mode and time to the file itself.
    file = an_entry("b", size=700, mode=0o4711, uid=1000, gid=70000, uname="me", mtime=1700000000)
    if form == tarfile.PAX_FORMAT:
        file.pax_headers = {"SCHILY.xattr.user.a": "b", "mtime": "1700000000.123456789"}
    layer = written(
        file,
        an_entry("c", tarfile.LNKTYPE, linkname="b"),
        an_entry(LONG[:90], tarfile.LNKTYPE, linkname="b"),
        form=form,
    )
    with tarfile.open(fileobj=io.BytesIO(flat(layer))) as archive:
        first, *links = archive.getmembers()
    assert (first.name, first.size) == ("b", 700)
    assert {(link.name, link.linkname) for link in links} == {("c", "b"), (LONG[:90], "b")}
    for link in links:
        assert link.islnk()
        assert link.size == 0
        for part in ("mode", "uid", "gid", "uname", "gname", "mtime"):
            assert getattr(link, part) == getattr(first, part)
        for key, value in file.pax_headers.items():
            assert link.pax_headers[key] == value


def test_a_link_into_the_base_keeps_what_it_says() -> None:
    layer = written(an_entry("b", tarfile.LNKTYPE, linkname="of/base", uid=7, mode=0o600))
    with tarfile.open(fileobj=io.BytesIO(flat(layer))) as archive:
        (found,) = archive.getmembers()
    assert (found.linkname, found.uid, found.mode) == ("of/base", 7, 0o600)


@pytest.mark.parametrize(
    "key", [b"SCHILY.xattr.security.capability", b"SCHILY.xattr.user.\xff", b"LIBARCHIVE.x"]
)
def test_attributes_are_kept_to_the_byte_under_another_name_too(key: bytes) -> None:
    value = bytes(range(256))
    record = b" " + key + b"=" + value + b"\n"
    length = len(record) + 3
    pax = an_entry("x", b"x", size=length)
    body = (b"%d" % length + record).ljust(BLOCK, b"\0")
    rest = written(an_entry("first"), an_entry("other", tarfile.LNKTYPE, linkname="first"))
    layer = pax.tobuf(tarfile.USTAR_FORMAT) + body + rest
    for above, names in ((), 2), ((written(an_entry(".wh.first")),), 1):
        merged = flat(layer, *above)
        assert merged.count(record) == names
        found = [dict(entry.records)[key] for entry in entries(merged) if entry.records]
        assert found == [value] * names


def entries(archive: bytes) -> list[Any]:
    reader, offset, found = Reader(io.BytesIO(archive)), 0, []
    while entry := reader.entry(offset):
        found.append(entry)
        offset = entry.data + -(-(entry.end - entry.data) // BLOCK) * BLOCK
    return found


SPARSE = {
    "GNU's own": ["--format=gnu"],
    "0.0": ["--format=posix", "--sparse-version=0.0"],
    "0.1": ["--format=posix", "--sparse-version=0.1"],
    "1.0": ["--format=posix", "--sparse-version=1.0"],
}


@pytest.mark.parametrize("options", SPARSE.values(), ids=SPARSE)
@pytest.mark.parametrize("holes", [1, 40], ids=["few holes", "a map in blocks of its own"])
def test_sparse_files_stay_so(tmp_path: Path, options: list[str], holes: int) -> None:
    with (tmp_path / "a").open("wb") as file:
        for number in range(1, holes + 1):
            file.seek(number << 18)
            file.write(b"data%d" % number)
        file.truncate((holes + 1) << 18)
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").write_bytes(b"after")
    command = ["tar", "-cS", *options, "-C", str(tmp_path), "a", "b", "c"]
    layer = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(layer) < 1 << 19
    expected = seen(layer)
    assert seen(flat(layer)) == expected
    merged = flat(layer, written(an_entry(".wh.a")))
    assert len(merged) < 1 << 19
    found = seen(merged)
    assert found["b"][4] == expected["a"][4]
    assert found["b"][-1] == expected["a"][-1]
    assert found["c"] == expected["c"]
    listed = subprocess.run(["tar", "-tv"], input=merged, check=True, capture_output=True)
    assert str((holes + 1) << 18) in listed.stdout.decode()


def test_a_global_header_says_nothing_of_a_file() -> None:
    buffer = io.BytesIO()
    headers = {"comment": "a" * 40, "path": "elsewhere"}
    with tarfile.open(fileobj=buffer, mode="w", pax_headers=headers) as archive:
        archive.addfile(an_entry("a"))
    assert [entry.name for entry in entries(buffer.getvalue())] == ["a"]
    assert list(seen(flat(buffer.getvalue()))) == ["a"]


def test_large_owners_and_sizes_are_read() -> None:
    layer = written(an_entry("a", uid=1 << 31, gid=1 << 30, size=600), form=tarfile.GNU_FORMAT)
    assert seen(flat(layer)) == seen(layer)


def header(kind: bytes = b"0", size: int = 0, name: bytes = b"a", **fields: bytes) -> bytes:
    block = bytearray(an_entry("a").tobuf(tarfile.USTAR_FORMAT))
    block[:100] = name.ljust(100, b"\0")
    block[156:157] = kind
    block[124:136] = fields.get("raw_size", b"%011o\0" % size)
    if "flag" in fields:
        block[482:483] = fields["flag"]
    block[148:156] = b"%06o\0 " % checksum(bytes(block))
    return bytes(block)


def pax(body: bytes) -> bytes:
    return header(b"x", len(body)) + body.ljust(-(-len(body) // BLOCK) * BLOCK, b"\0")


HOSTILE = {
    "no tar": (b"no tar" * 200, "cannot be read"),
    "a damaged header": (header()[:-1] + b"x", "is damaged"),
    "garbage after an entry": (header() + b"garbage".ljust(BLOCK, b"!"), "is damaged"),
    "an end in a header": (header()[:300], "ends in the middle"),
    "an end in a file": (header(size=600) + bytes(BLOCK), "ends in the middle of 'a'"),
    "an end in an extended header": (header(b"x", 600), "ends in the middle"),
    "an end after an extended header": (pax(b"9 path=a\n"), "middle of an entry"),
    "an extended header without an end": (header(b"x", MOST_HEADER + 1), "1024 KiB"),
    "a long name without an end": (header(b"L", MOST_HEADER + 1), "1024 KiB"),
    "headers without an end": (pax(b"9 path=a\n") * 9, "more than 4 headers"),
    "a sparse file without an end": (header(b"S", flag=b"\1"), "without an end"),
    "a negative size": (header(raw_size=b"\xff" * 12), "negative"),
    "a size that is no number": (header(raw_size=b"12x45678901\0"), "damaged"),
    "a size beyond all": (header(raw_size=b"\x80" + b"\x7f" * 11), "middle of 'a'"),
    "a kind that is none": (header(b"V"), "unknown kind"),
    "a name that is too long": (
        pax(b"%d path=%s\n" % (MOST_NAME + 12, b"a" * (MOST_NAME + 1))) + header(),
        "more than 4096 bytes",
    ),
    "a name with a zero": (pax(b"10 path=\0\n") + header(), "with a zero"),
    "a record that is too long": (pax(b"99 path=a\n") + header(), "damaged pax"),
    "a record of no length": (pax(b"0 path=a\n") + header(), "damaged pax"),
    "a record without an end": (pax(b"9 path=ab") + header(), "damaged pax"),
    "a record without a sign": (pax(b"8 pathx\n") + header(), "damaged pax"),
    "a record with a sign before its length": (pax(b"-9 path=a\n") + header(), "damaged pax"),
    "a file hidden by no name": (header(name=b"d/.wh."), "is no name"),
    "a folder hidden from within": (header(name=b"d/.wh..."), "is no name"),
}


@pytest.mark.parametrize(("layer", "text"), HOSTILE.values(), ids=HOSTILE)
def test_a_layer_with(layer: bytes, text: str) -> None:
    with pytest.raises(BadLayer, match=text):
        flat(layer)


def test_a_header_of_digits_is_read_in_linear_time() -> None:
    # The library's reader takes hours for it, and nothing else runs in the meantime.
    with pytest.raises(BadLayer):
        parsed(b"1" * MOST_HEADER)
    value = b"1" * (MOST_HEADER // 2)
    assert parsed(record(value)) == ((b"user.x", value),)


def record(value: bytes) -> bytes:
    rest = b" user.x=" + value + b"\n"
    return b"%d" % (len(rest) + len(str(len(rest)))) + rest
