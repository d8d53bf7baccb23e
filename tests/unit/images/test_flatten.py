"""Layers merged into one do to a base what all of them did, one after the other."""

import io
import posixpath
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.images.flatten import merge, tree_of
from imagewright.images.presence import Presence
from imagewright.images.tar import BadLayer, entries_of


@dataclass(frozen=True, slots=True)
class Item:
    """An entry of a layer: `f` a file, `d` a folder, `s` a symlink, `l` a hard link."""

    kind: str
    path: str
    text: str = ""
    mode: int = 0o644


def packed(items: Sequence[Item]) -> bytes:
    """A layer's tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for item in items:
            info = tarfile.TarInfo(item.path)
            info.mode = item.mode
            if item.kind == "f":
                info.size = len(item.text)
                archive.addfile(info, io.BytesIO(item.text.encode()))
                continue
            info.type = {"d": tarfile.DIRTYPE, "s": tarfile.SYMTYPE, "l": tarfile.LNKTYPE}[
                item.kind
            ]
            info.linkname = item.text
            archive.addfile(info)
    return buffer.getvalue()


class Disk:
    """A file system in memory, to which layers are applied as the image specification says."""

    def __init__(self) -> None:
        self.at: dict[str, list[Any]] = {}

    def apply(self, layer: bytes) -> "Disk":
        """Unpack one layer over what is there."""
        fresh: set[str] = set()
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            entries = [
                (info, archive.extractfile(info) if info.isreg() else None) for info in archive
            ]
            for info, file in entries:
                path = posixpath.normpath(info.name)
                folder, name = posixpath.split(path)
                if name == ".wh..wh..opq":
                    self._remove(folder, keep=fresh | {folder})
                elif name.startswith(".wh."):
                    self._remove(posixpath.join(folder, name[4:]), keep=set())
                else:
                    self._put(path, info, file.read() if file else b"")
                    fresh |= {path, *parents(path)}
        return self

    def _put(self, path: str, info: tarfile.TarInfo, content: bytes) -> None:
        for parent in parents(path):
            if self.at.get(parent, ["d"])[0] != "d":
                self._remove(parent, keep=set())
            self.at.setdefault(parent, ["d", 0o755])
        old = self.at.get(path)
        if not (info.isdir() and old and old[0] == "d"):
            self._remove(path, keep=set())
        if info.islnk():
            self.at[path] = self.at[posixpath.normpath(info.linkname)]
        elif info.isdir():
            self.at[path] = ["d", info.mode]
        else:
            self.at[path] = ["f" if info.isreg() else "s", info.mode, content, info.linkname]

    def _remove(self, path: str, keep: set[str]) -> None:
        for known in list(self.at):
            inside = known == path or known.startswith(f"{path}/") or not path
            if inside and known not in keep:
                del self.at[known]

    def tree(self) -> dict[str, Any]:
        """What is there, and which names are one file."""
        groups: dict[int, list[str]] = {}
        for path, node in self.at.items():
            groups.setdefault(id(node), []).append(path)
        same = {path: min(groups[id(node)]) for path, node in self.at.items()}
        return {path: (*node, same[path]) for path, node in self.at.items()}


def parents(path: str) -> list[str]:
    """The folders above, from the highest."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: at + 1]) for at in range(len(parts))]


def flat(layers: Sequence[bytes], *base: bytes) -> bytes:
    """The layers merged, above a base."""
    files: list[IO[bytes]] = [io.BytesIO(data) for data in layers]
    into = io.BytesIO()
    tree = tree_of(files)
    presence = Presence(tree.asked())
    for layer in base:
        presence.apply(entries_of(io.BytesIO(layer)))
    tree.settle(presence)
    merge(tree, files, into)
    return into.getvalue()


def check(base: Sequence[Item], *layers: Sequence[Item]) -> dict[str, Any]:
    """The merged layer over the base is all layers over the base; what that is."""
    bottom, above = packed(base), [packed(layer) for layer in layers]
    expected = Disk().apply(bottom)
    for layer in above:
        expected.apply(layer)
    merged = flat(above, bottom)
    found = Disk().apply(bottom).apply(merged)
    assert found.tree() == expected.tree()
    assert_hides_nothing_in_vain(Disk().apply(bottom), merged)
    return found.tree()


def assert_hides_nothing_in_vain(base: Disk, merged: bytes) -> None:
    """What is hidden is there, and not hidden by its folder already.

    An overlay has a device where something is hidden; in a folder that no lower layer has, it is
    taken for a device, and the rest of the folder is not seen.
    """
    with tarfile.open(fileobj=io.BytesIO(merged)) as archive:
        names = {posixpath.normpath(info.name): info for info in archive}
    for name in names:
        folder, last = posixpath.split(name)
        if last == ".wh..wh..opq":
            assert folder in base.at or (not folder and base.at)
        elif last.startswith(".wh."):
            assert posixpath.join(folder, last[4:]) in base.at
            for up in [*parents(folder), folder] if folder else [""]:
                assert posixpath.join(up, ".wh..wh..opq") not in names
                assert up not in names or names[up].isdir()


F, D, S, L = "fdsl"
ODD: dict[str, tuple[list[Item], list[list[Item]]]] = {
    "a file added to a new folder and removed": (
        [],
        [[Item(D, "d"), Item(F, "d/a"), Item(F, "d/b")], [Item(D, "d"), Item(F, "d/.wh.a")]],
    ),
    "a file added to an emptied folder and removed": (
        [Item(D, "d"), Item(F, "d/a")],
        [[Item(D, "d"), Item(F, "d/.wh..wh..opq"), Item(F, "d/b")], [Item(F, "d/.wh.a")]],
    ),
    "a file removed from what the base has as a file": (
        [Item(F, "d")],
        [[Item(D, "d"), Item(F, "d/a"), Item(F, "d/b")], [Item(D, "d"), Item(F, "d/.wh.a")]],
    ),
    "a new folder emptied": ([], [[Item(D, "d"), Item(F, "d/a")], [Item(F, "d/.wh..wh..opq")]]),
    "a folder that a lower layer of the base has without saying so": (
        [Item(F, "d/e/a")],
        [[Item(F, "d/.wh.e")]],
    ),
}
"""What only looks at the base can tell."""
CASES: dict[str, tuple[list[Item], list[list[Item]]]] = {
    "a file added and removed again": ([], [[Item(F, "a")], [Item(F, ".wh.a")]]),
    "a file of the base removed": ([Item(F, "a")], [[Item(F, ".wh.a")], [Item(F, "b")]]),
    "a file of the base removed and made anew": (
        [Item(F, "a", "1")],
        [[Item(F, ".wh.a")], [Item(F, "a", "2")]],
    ),
    "a folder of the base removed and made anew": (
        [Item(D, "d"), Item(F, "d/old")],
        [[Item(F, ".wh.d")], [Item(D, "d"), Item(F, "d/new")]],
    ),
    "a folder of the base made opaque": (
        [Item(D, "d"), Item(F, "d/old"), Item(D, "d/e"), Item(F, "d/e/f")],
        [[Item(D, "d"), Item(F, "d/.wh..wh..opq"), Item(F, "d/new")]],
    ),
    "a folder made opaque after something was put into it": (
        [Item(D, "d"), Item(F, "d/old")],
        [[Item(F, "d/mine")], [Item(F, "d/.wh..wh..opq"), Item(F, "d/new")]],
    ),
    "a folder replaced by a file": (
        [Item(D, "d"), Item(F, "d/old")],
        [[Item(F, "d/more")], [Item(F, "d", "now a file")]],
    ),
    "a file replaced by a folder": ([Item(F, "d")], [[Item(D, "d"), Item(F, "d/a")]]),
    "a folder replaced by a file and by a folder again": (
        [Item(D, "d"), Item(F, "d/old")],
        [[Item(F, "d")], [Item(D, "d"), Item(F, "d/new")]],
    ),
    "a folder replaced by a file and by what lies in a folder": (
        [Item(D, "d", mode=0o755), Item(F, "d/old")],
        [[Item(F, "d")], [Item(F, "d/new")]],
    ),
    "a folder removed with what lies in it": (
        [Item(D, "d")],
        [[Item(D, "d/e"), Item(F, "d/e/f")], [Item(F, "d/.wh.e")]],
    ),
    "a hard link in one layer": ([], [[Item(F, "a", "x"), Item(L, "b", "a")]]),
    "a hard link whose first name is gone": (
        [],
        [[Item(F, "a", "x"), Item(L, "b", "a"), Item(L, "c", "a")], [Item(F, ".wh.a")]],
    ),
    "a hard link whose first name is another file now": (
        [],
        [[Item(F, "a", "x"), Item(L, "b", "a")], [Item(F, "a", "y")]],
    ),
    "a hard link to a file of the base": ([Item(F, "a", "x")], [[Item(L, "b", "a")]]),
    "a hard link to a file of a lower layer": (
        [],
        [[Item(F, "a", "x")], [Item(L, "b", "a")], [Item(F, ".wh.a")]],
    ),
    "a folder's mode changed above what is in it": (
        [],
        [[Item(D, "d", mode=0o755), Item(F, "d/a")], [Item(D, "d", mode=0o700)]],
    ),
    "a symlink replaced": ([Item(S, "s", "a")], [[Item(S, "s", "b")]]),
    "the root itself": ([], [[Item(D, ".", mode=0o700), Item(F, "./a")]]),
}


@pytest.mark.row("seed-1")
@pytest.mark.parametrize(("base", "layers"), [*CASES.values(), *ODD.values()], ids=[*CASES, *ODD])
def test_the_merged_layer_does_what_all_of_them_did(
    base: list[Item], layers: list[list[Item]]
) -> None:
    check(base, *layers)


names = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "e", "e/a"])
files = st.builds(Item, st.just(F), names, st.sampled_from("xyz"))
folders = st.builds(Item, st.just(D), names, mode=st.sampled_from([0o755, 0o700]))
gone = names.map(
    lambda path: Item(
        F, posixpath.join(posixpath.dirname(path), f".wh.{posixpath.basename(path)}")
    )
)
links = st.builds(Item, st.just(L), names, names)
opaque = names.map(lambda path: Item(F, f"{path}/.wh..wh..opq"))


def sane(items: list[Item]) -> list[Item]:
    """A layer as a differ writes one: each name once, in folders, and what hides comes first."""
    kept: dict[str, Item] = {}
    for item in items:
        if ".wh." not in item.path and fits(kept, item):
            kept |= {up: kept.get(up, Item(D, up, mode=0o755)) for up in parents(item.path)}
            kept[item.path] = item
    for item in items:
        folder, name = posixpath.split(item.path)
        target = posixpath.join(folder, name.removeprefix(".wh."))
        above = [*parents(item.path)]
        if ".wh." not in name or target in kept:
            continue
        if all(kept.get(up, Item(D, up)).kind == D for up in above):
            if name == ".wh..wh..opq":
                kept |= {up: kept.get(up, Item(D, up, mode=0o755)) for up in above}
            kept[item.path] = item
    found = [item for item in kept.values() if item.kind != L or is_file(kept, item.text)]
    # What hides comes first, and a link after the file that it is to.
    return sorted(found, key=lambda item: (".wh." not in item.path, item.kind == L, item.path))


def is_file(kept: dict[str, Item], path: str) -> bool:
    """Whether there is a file in the same layer."""
    return path in kept and kept[path].kind == F


def fits(kept: dict[str, Item], item: Item) -> bool:
    """Whether it can be in one layer with those: nothing lies in a file."""
    in_folders = all(kept.get(up, item).kind == D or up not in kept for up in parents(item.path))
    holds = any(path.startswith(f"{item.path}/") for path in kept)
    return in_folders and (item.kind == D or not holds)


layer = st.lists(st.one_of(files, folders, links, gone, opaque), max_size=8).map(sane)


@given(
    st.lists(st.one_of(files, folders, links), max_size=8).map(sane), st.lists(layer, max_size=4)
)
def test_any_layers_merged_do_what_all_of_them_did(
    base: list[Item], layers: list[list[Item]]
) -> None:
    check(base, *layers)


def test_attributes_and_fine_times_are_kept() -> None:
    info = tarfile.TarInfo("a")
    info.uid, info.gid, info.mode = 1000, 70000, 0o4755
    info.pax_headers = {
        "mtime": "1700000000.123456789",
        "SCHILY.xattr.user.note": "grüße",
        "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\udcff\x00",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    with tarfile.open(fileobj=io.BytesIO(flat([buffer.getvalue()]))) as merged:
        (found,) = merged.getmembers()
    assert (found.uid, found.gid, found.mode) == (1000, 70000, 0o4755)
    assert found.pax_headers["mtime"] == "1700000000.123456789"
    assert found.pax_headers["SCHILY.xattr.user.note"] == "grüße"
    assert (
        found.pax_headers["SCHILY.xattr.security.capability"]
        == info.pax_headers["SCHILY.xattr.security.capability"]
    )


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_kept(kind: bytes) -> None:
    info = tarfile.TarInfo("dev/x")
    info.type, info.devmajor, info.devminor = kind, 5, 7
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(info)
    with tarfile.open(fileobj=io.BytesIO(flat([buffer.getvalue()]))) as merged:
        (found,) = merged.getmembers()
    assert found.type == kind
    if kind != tarfile.FIFOTYPE:
        assert (found.devmajor, found.devminor) == (5, 7)


REFUSED: dict[str, list[list[Item]]] = {
    "a name that leads out": [[Item(F, "../a")]],
    "a name that leads out further in": [[Item(F, "a/../../b")]],
    "a link that leads out": [[Item(L, "a", "../../etc/passwd")]],
    "a link to what is gone": [[Item(F, ".wh.a")], [Item(L, "b", "a")]],
    "a link to a folder": [[Item(D, "a"), Item(L, "b", "a")]],
    "a link to a file of the base that is replaced": [[Item(L, "b", "a")], [Item(F, "a")]],
}


@pytest.mark.row("S7")
@pytest.mark.parametrize("layers", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(layers: list[list[Item]]) -> None:
    with pytest.raises(BadLayer):
        flat([packed(layer) for layer in layers])


def test_a_layer_that_is_no_tar_is_refused() -> None:
    with pytest.raises(BadLayer, match="cannot be read"):
        flat([b"no tar" * 200])
