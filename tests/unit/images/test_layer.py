"""Layers unpacked whatever they are packed by, and packed again."""

import gzip
import hashlib
import io
import tarfile
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import IO

import pytest
import zstandard

from imagewright.images.flatten import tree_of
from imagewright.images.layer import PIECE, Packed, Unpacking, packed
from imagewright.images.tar import BadLayer

CONTENT = b"".join(hashlib.sha256(b"%d" % at).digest() for at in range(99)) * 9


def members(content: bytes) -> bytes:
    """Gzip of many members, as layers have it that are read lazily."""
    return b"".join(gzip.compress(content[at : at + 999]) for at in range(0, len(content), 999))


def frames(content: bytes) -> bytes:
    """Zstandard of many frames, and one to be skipped."""
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
    parts = [zstandard.compress(content[at : at + 999]) for at in range(0, len(content), 999)]
    return skipped.join(parts)


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip of many members": members,
    "zstd": zstandard.compress,
    "zstd of many frames": frames,
    "nothing": bytes,
}


def diff_id(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
def test_a_layer_is_unpacked_while_it_comes(pack: Callable[[bytes], bytes], size: int) -> None:
    held, into = pack(CONTENT), io.BytesIO()
    unpacking = Unpacking(into, len(CONTENT))
    for at in range(0, len(held), size):
        unpacking.feed(held[at : at + size])
    unpacking.finish(diff_id(CONTENT))
    assert into.getvalue() == CONTENT
    assert unpacking.size == len(CONTENT)


@pytest.mark.parametrize("content", [b"", b"abc"])
def test_a_layer_shorter_than_any_mark_is_plain(content: bytes) -> None:
    into = io.BytesIO()
    unpacking = Unpacking(into, 3)
    unpacking.feed(content)
    unpacking.finish(diff_id(content))
    assert into.getvalue() == content


class Counted(io.BytesIO):
    """Counts what is written, and forgets it."""

    most = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.most = max(self.most, len(data))
        return len(data)


@pytest.mark.row("S8")
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_bomb_is_stopped_and_never_whole_in_memory(pack: Callable[[bytes], bytes]) -> None:
    into = Counted()
    unpacking = Unpacking(into, 5 * PIECE)
    with pytest.raises(BadLayer, match="the layers hold more than 5 MiB"):
        unpacking.feed(pack(bytes(9 * PIECE)))
    assert into.most <= PIECE
    assert unpacking.size <= 6 * PIECE


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
def test_a_layer_that_breaks_off_is_refused(pack: Callable[[bytes], bytes]) -> None:
    unpacking = Unpacking(io.BytesIO(), 1 << 20)
    unpacking.feed(pack(CONTENT)[:-20])
    with pytest.raises(BadLayer, match="breaks off, or is another one"):
        unpacking.finish(diff_id(CONTENT))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_damaged_layer_is_refused(pack: Callable[[bytes], bytes]) -> None:
    held = pack(CONTENT)
    with pytest.raises(BadLayer, match="cannot be unpacked"):
        Unpacking(io.BytesIO(), 1 << 20).feed(held[:4] + b"\xff" * 90 + held[94:])


def a_layer(*names: str) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return buffer


def merged(
    layers: Sequence[IO[bytes]], into: IO[bytes], stop: threading.Event | None = None
) -> Packed:
    return packed(tree_of(layers), layers, into, stop or threading.Event())


def test_a_merged_layer_has_both_of_its_digests() -> None:
    into = io.BytesIO()
    made = merged([a_layer("a"), a_layer("b")], into)
    held = into.getvalue()
    assert (made.digest, made.size) == (diff_id(held), len(held))
    unpacked = zlib.decompress(held, zlib.MAX_WBITS | 16)
    assert made.diff_id == diff_id(unpacked)
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        assert archive.getnames() == ["a", "b"]


def test_the_same_layers_come_to_the_same_digest() -> None:
    made = [merged([a_layer("a"), a_layer("b", ".wh.a")], io.BytesIO()) for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.parametrize("layers", [[], [a_layer()], [a_layer(), a_layer()]])
def test_layers_that_do_nothing_are_known(layers: list[io.BytesIO]) -> None:
    assert tree_of(layers).empty


def test_more_entries_than_any_image_has_are_refused() -> None:
    layers = [a_layer("a", "b", "c"), a_layer("a", "b")]
    with pytest.raises(BadLayer, match="more than 4 entries"):
        tree_of(layers, 4)
    with pytest.raises(BadLayer, match="more than 4 names"):
        tree_of([a_layer("a/b/c/d/e")], 4)


def test_who_merges_ends_when_nobody_waits() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(BadLayer, match="nobody waits"):
        merged([a_layer("a")], io.BytesIO(), stop)
