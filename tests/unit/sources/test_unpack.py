"""Archives: what they may hold, where it lands, and how much of it there may be."""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewright.sources.archive import Caps, Unpackable
from imagewright.sources.unpack import Stopped, Unpacking

Entry = tuple[str, bytes, str | bytes]
"""A name, a tar type, and a link's target or a file's content."""
FILE, HARD, LINK, FOLDER = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE


def tar(entries: Iterable[Entry], mode: int = 0o644) -> bytes:
    """An archive of these entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, what in entries:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.mtime = kind, mode, 1_700_000_000
            if isinstance(what, bytes):
                member.size = len(what)
                archive.addfile(member, io.BytesIO(what))
            else:
                member.linkname = what
                archive.addfile(member)
    return buffer.getvalue()


def unpack(content: bytes, root: Path, caps: Caps | None = None) -> None:
    """Unpack one archive."""
    unpacking = Unpacking(root, caps or Caps())
    unpacking.add(io.BytesIO(content))
    unpacking.finish()


def layers(root: Path, *all_entries: Iterable[Entry]) -> None:
    """Apply layers of an image."""
    unpacking = Unpacking(root, Caps(), layer=True)
    for entries in all_entries:
        unpacking.add(io.BytesIO(tar(entries)))
    unpacking.finish()


def names(root: Path) -> set[str]:
    """All that is in a folder."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        bz2.compress,
        lzma.compress,
        lambda data: lzma.compress(data[:700]) + lzma.compress(data[700:]),
        zstandard.compress,
        lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
    ],
    ids=["plain", "gzip", "bzip2", "xz", "xz in two streams", "zstd", "gzip in two members"],
)
def test_every_compression_is_known(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    unpack(pack(tar([("./a/b", FILE, b"one"), ("c", LINK, "a/b"), ("d", HARD, "a/b")])), tmp_path)
    assert names(tmp_path) == {"a", "a/b", "c", "d"}
    assert (tmp_path / "c").read_text() == (tmp_path / "d").read_text() == "one"


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o4755, 0o2711, 0o000, 0o1777])
def test_modes_and_times_are_kept(tmp_path: Path, mode: int) -> None:
    unpack(tar([("folder", FOLDER, ""), ("folder/file", FILE, b"x")], mode), tmp_path)
    for path, least in ((tmp_path / "folder/file", 0o400), (tmp_path / "folder", 0o500)):
        assert stat.S_IMODE(path.stat().st_mode) == mode | least
        assert path.stat().st_mtime == 1_700_000_000


def test_what_comes_later_counts(tmp_path: Path) -> None:
    entries: list[Entry] = [
        ("a", FILE, b"1"),
        ("b", HARD, "a"),
        ("b", FILE, b"2"),
        ("c/d", FILE, b"3"),
    ]
    unpack(tar([*entries, ("c", FILE, b"4")]), tmp_path)
    assert {name: (tmp_path / name).read_text() for name in names(tmp_path)} == {
        "a": "1",
        "b": "2",
        "c": "4",
    }


@pytest.mark.row("S7")
@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([("/etc/x", FILE, b"")], "outside of it"),
        ([("../x", FILE, b"")], "outside of it"),
        ([("../root-evil/x", FILE, b"")], "outside of it"),
        ([("a/../../x", FILE, b"")], "outside of it"),
        ([("a", LINK, "/etc")], "link out of it"),
        ([("a", LINK, "../x")], "link out of it"),
        ([("a/b", LINK, "../../x")], "link out of it"),
        ([("a", HARD, "/etc/passwd")], "outside of it"),
        ([("a", HARD, "../../etc/passwd")], "outside of it"),
        ([("a", HARD, "nothing")], "no file that comes before"),
        ([("a", LINK, "b"), ("b", LINK, "a"), ("a/x", FILE, b"")], "loop of links"),
        ([("a", LINK, "b"), ("c", HARD, "a")], "no file that comes before"),
        ([("a", tarfile.CHRTYPE, "")], "device, fifo"),
        ([("a", tarfile.BLKTYPE, "")], "device, fifo"),
        ([("a", tarfile.FIFOTYPE, "")], "device, fifo"),
        ([("a" * 300, FILE, b"")], "too long"),
    ],
)
def test_what_leads_out_of_an_archive_is_refused(
    tmp_path: Path, entries: list[Entry], said: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(Unpackable, match=said):
        unpack(tar(entries), root)
    assert names(tmp_path) <= {"root", "root/a", "root/b"}


PARTS = st.sampled_from(["a", "b", "..", ".", "", "/", "c"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
ENTRIES = st.lists(
    st.one_of(
        st.tuples(PATHS, st.just(FILE), st.just(b"x")),
        st.tuples(PATHS, st.sampled_from([LINK, HARD]), PATHS),
        st.tuples(PATHS, st.just(FOLDER), st.just("")),
    ),
    max_size=8,
)


@pytest.mark.timeout(60)
@pytest.mark.row("S7")
@settings(max_examples=300)
@given(entries=ENTRIES, layer=st.booleans())
def test_no_archive_touches_anything_outside(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry], layer: bool
) -> None:
    around = tmp_path_factory.mktemp("around")
    root = around / "root"
    (root).mkdir()
    (around / "a").write_text("outside")
    unpacking = Unpacking(root, Caps(), layer=layer)
    try:
        unpacking.add(io.BytesIO(tar(entries)))
        unpacking.finish()
    except Unpackable:
        pass
    assert {path.name for path in around.iterdir()} == {"root", "a"}
    assert (around / "a").read_text() == "outside"
    assert (around / "a").stat().st_nlink == 1
    for path in root.rglob("*"):
        if path.is_symlink() and not layer:
            landed = os.path.normpath(path.parent / path.readlink())
            assert landed == str(root) or landed.startswith(f"{root}/")


@pytest.mark.row("S8")
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(tar([("a", FILE, bytes(40 << 20))])), "200 times its size"),
        (zstandard.compress(tar([("a", FILE, bytes(40 << 20))])), "200 times its size"),
        (lzma.compress(tar([("a", FILE, bytes(40 << 20))])), "200 times its size"),
        (tar([("a", FILE, bytes(2 << 20))]), "more than 1 MiB"),
        (tar([(f"f{n}", FILE, b"") for n in range(60)]), "more than 50 files"),
        (tar([("a", FILE, bytes(2 << 20))])[: 1 << 20], "archive"),
        (b"\x28\xb5\x2f\xfd" + b"junk" * 8, "cannot be unpacked"),
        (gzip.compress(tar([("a", FILE, b"x" * 9000)]))[:40], "archive"),
        (tar([("a", FILE, b"x")])[:1024] + b"junk" * 128, "broken"),
    ],
    ids=[
        "a gzip bomb",
        "a zstd bomb",
        "an xz bomb",
        "too many bytes",
        "too many files",
        "an end too early",
        "a broken stream",
        "a cut stream",
        "a broken header in the middle",
    ],
)
def test_an_archive_out_of_bounds_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    large = said.startswith("200")
    caps = Caps() if large else Caps(out=1 << 20, files=50)
    with pytest.raises(Unpackable, match=said):
        unpack(content, tmp_path, caps)


@pytest.mark.row("S8")
def test_a_header_cannot_fill_the_memory(tmp_path: Path) -> None:
    member = tarfile.TarInfo("huge")
    member.type, member.size = tarfile.XHDTYPE, 1 << 30
    content = member.tobuf(tarfile.GNU_FORMAT) + bytes(8 << 20)
    with pytest.raises(Unpackable, match="header that is larger"):
        unpack(content, tmp_path)


@pytest.mark.row("S8")
def test_a_sparse_file_counts_with_all_of_its_size(tmp_path: Path) -> None:
    header = tarfile.TarInfo("sparse")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 512
    raw = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    raw[386:410] = b"00000000000\x0000000001000\x00"
    raw[483:495] = b"77777777777\x00"
    raw[148:156] = b" " * 8
    raw[148:156] = f"{sum(raw):06o}\x00 ".encode()
    with pytest.raises(Unpackable, match="more than"):
        unpack(bytes(raw) + bytes(2048), tmp_path)


def test_unpacking_stops_when_it_is_told_to(tmp_path: Path) -> None:
    unpacking = Unpacking(tmp_path, Caps())
    unpacking.stop.set()
    with pytest.raises(Stopped):
        unpacking.add(io.BytesIO(tar([("a", FILE, b"x")])))
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("lower", "upper", "left"),
    [
        ([("a", FILE, b""), ("b", FILE, b"")], [(".wh.a", FILE, b"")], {"b"}),
        ([("d/a", FILE, b"")], [("d/.wh..wh..opq", FILE, b""), ("d/b", FILE, b"")], {"d", "d/b"}),
        ([("d/a", FILE, b"")], [("d/b", FILE, b""), ("d/.wh..wh..opq", FILE, b"")], {"d", "d/b"}),
        (
            [("d/e/a", FILE, b"")],
            [("d/e/b", FILE, b""), ("d/.wh..wh..opq", FILE, b"")],
            {"d", "d/e", "d/e/b"},
        ),
        ([("d/a", FILE, b"")], [("d", FILE, b"")], {"d"}),
        ([("a", FILE, b"")], [("a", FILE, b""), (".wh.a", FILE, b"")], {"a"}),
        (
            [("usr/bin/x", FILE, b""), ("bin", LINK, "usr/bin")],
            [("bin/y", FILE, b"")],
            {"usr", "usr/bin", "usr/bin/x", "usr/bin/y", "bin"},
        ),
        (
            [("etc/x", FILE, b""), ("abs", LINK, "/etc")],
            [("/abs/y", FILE, b"")],
            {"etc", "etc/x", "etc/y", "abs"},
        ),
        ([], [("up", LINK, "../../.."), ("up/y", FILE, b"")], {"up", "y"}),
    ],
)
def test_layers_lie_over_one_another(
    tmp_path: Path, lower: list[Entry], upper: list[Entry], left: set[str]
) -> None:
    root = tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    layers(root, lower, upper)
    assert {
        str((Path(folder) / name).relative_to(root))
        for folder, folders, files in os.walk(root)
        for name in folders + files
    } == left
