"""What is sent of a tree, by the rules of fsutil's own sender, and so of its receiver."""

import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.clients.buildkit.proto.fsutil_pb2 import Stat
from imagewright.clients.buildkit.trees import Directory, Entry, Files, Tree
from imagewright.clients.buildkit.walk import (
    GO_CHARACTER,
    GO_DEVICE,
    GO_FIFO,
    GO_FOLDER,
    GO_SETGID,
    GO_SETUID,
    GO_STICKY,
    GO_SYMLINK,
    Request,
    follow_links,
    go_mode,
    is_file,
    walk,
)

Links = Mapping[str, str]


def planted(root: Path, *files: str, links: Links | None = None) -> Directory:
    """A directory with these files (a name that ends in a slash is a folder) and symlinks."""
    for file in files:
        path = root / file
        if file.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file)
    for name, target in (links or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)
    return Directory(root)


def sent(tree: Tree, **request: list[str]) -> dict[str, Stat]:
    """All stats by path, which are in the order in which they were sent."""
    return {found.path: found for found in walk(tree, Request(**request))}


def test_names_are_in_the_order_of_bytes_and_folders_before_their_longer_siblings(
    tmp_path: Path,
) -> None:
    tree = planted(tmp_path, "a-b", "a/b", "a.txt", "B", "ä", "z", "a/a/c", "\U0001f600")

    order = ["B", "a", "a/a", "a/a/c", "a/b", "a-b", "a.txt", "z", "ä", "\U0001f600"]
    assert list(sent(tree)) == order
    assert list(sent(Files(dict.fromkeys(["a-b", "a/b", "a.txt"], b"")))) == [
        "a",
        "a/b",
        "a-b",
        "a.txt",
    ]


@pytest.mark.parametrize(
    ("mode", "bits"),
    [
        pytest.param(stat.S_IFREG | 0o644, 0o644, id="a file has no bit of its own"),
        pytest.param(stat.S_IFDIR | 0o755, GO_FOLDER | 0o755, id="a folder"),
        pytest.param(stat.S_IFLNK | 0o777, GO_SYMLINK | 0o777, id="a symlink"),
        pytest.param(stat.S_IFIFO | 0o600, GO_FIFO | 0o600, id="a fifo"),
        pytest.param(stat.S_IFBLK | 0o600, GO_DEVICE | 0o600, id="a block device"),
        pytest.param(
            stat.S_IFCHR | 0o600, GO_DEVICE | GO_CHARACTER | 0o600, id="a character device"
        ),
        pytest.param(stat.S_IFSOCK | 0o700, 0o700, id="a socket passes for a file"),
        pytest.param(stat.S_IFREG | 0o4755, GO_SETUID | 0o755, id="setuid"),
        pytest.param(stat.S_IFREG | 0o2755, GO_SETGID | 0o755, id="setgid"),
        pytest.param(stat.S_IFDIR | 0o1777, GO_FOLDER | GO_STICKY | 0o777, id="sticky"),
    ],
)
def test_modes_are_those_of_go(mode: int, bits: int) -> None:
    assert go_mode(mode) == bits
    assert is_file(bits) is (stat.S_IFMT(mode) in (stat.S_IFREG, stat.S_IFSOCK))


def test_a_file_is_described_by_mode_size_and_time_and_owned_by_root(tmp_path: Path) -> None:
    tree = planted(tmp_path, "d/f")
    (tmp_path / "d/f").chmod(0o4711)
    os.utime(tmp_path / "d/f", ns=(1, 1_700_000_000_123_456_789))
    found = sent(tree)

    assert found["d/f"] == Stat(
        path="d/f", mode=GO_SETUID | 0o711, size=3, modTime=1_700_000_000_123_456_789
    )
    assert (found["d"].size, found["d"].uid, found["d"].gid) == (0, 0, 0)


def test_a_symlink_is_sent_as_it_is_and_never_entered(tmp_path: Path) -> None:
    tree = planted(tmp_path, "d/f", links={"to-d": "d", "dangling": "nowhere", "out": "/etc"})
    found = sent(tree)

    assert list(found) == ["d", "d/f", "dangling", "out", "to-d"]
    assert (found["out"].linkname, found["out"].size) == ("/etc", 4)
    assert not is_file(found["dangling"].mode)


def test_a_fifo_and_a_socket_are_sent_and_nobody_waits_for_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "sock"))
    tree = Directory(tmp_path)
    found = sent(tree)

    assert found["pipe"].mode == GO_FIFO | 0o600
    assert is_file(found["sock"].mode)
    with pytest.raises(OSError, match="No such device or address"):
        tree.open("sock")
    with pytest.raises(FileNotFoundError):
        tree.open("pipe")


def test_a_second_name_of_a_file_is_a_link_to_the_first(tmp_path: Path) -> None:
    tree = planted(tmp_path, "b")
    os.link(tmp_path / "b", tmp_path / "c")
    os.link(tmp_path / "b", tmp_path / "a")
    found = sent(tree)

    assert [entry.linkname for entry in found.values()] == ["", "a", "a"]
    # fsutil sets a size of 0 for links, and then the real one again.
    assert found["c"].size == 1


def test_a_hard_link_to_an_ignored_file_is_a_file(tmp_path: Path) -> None:
    tree = planted(tmp_path, "a")
    os.link(tmp_path / "a", tmp_path / "b")
    os.link(tmp_path / "a", tmp_path / "c")
    found = sent(tree, excludes=["a"])

    assert [(path, entry.linkname) for path, entry in found.items()] == [("b", ""), ("c", "b")]


def test_two_names_of_one_symlink_both_keep_their_target(tmp_path: Path) -> None:
    tree = planted(tmp_path, links={"a": "x"})
    os.link(tmp_path / "a", tmp_path / "b", follow_symlinks=False)

    assert sent(tree)["b"].linkname == "x"


class Devices:
    """A tree of one device, which only root could make on a disk."""

    key = ""

    def entries(self, folder: str) -> list[Entry]:
        return [Entry("null", stat.S_IFCHR | 0o666, device=os.makedev(1, 3))]


def test_a_device_is_sent_with_its_number() -> None:
    found = sent(Devices())["null"]  # type: ignore[arg-type]

    assert (found.devmajor, found.devminor) == (1, 3)
    assert found.mode == GO_DEVICE | GO_CHARACTER | 0o666


@pytest.mark.parametrize("wanted", [True, False], ids=["sent if wanted", "left out if not"])
def test_extended_attributes_are(tmp_path: Path, wanted: bool) -> None:
    planted(tmp_path, "f")
    try:
        os.setxattr(tmp_path / "f", "user.colour", b"blue\xff")
        os.setxattr(tmp_path / "f", "user.empty", b"")
    except OSError:
        pytest.skip("This file system has no extended attributes.")
    found = sent(Directory(tmp_path, xattrs=wanted))["f"]

    assert dict(found.xattrs) == (
        {"user.colour": b"blue\xff", "user.empty": b""} if wanted else {}
    )


@pytest.mark.parametrize(
    ("request_", "paths"),
    [
        pytest.param(
            {"excludes": ["a"]}, ["b", "b/x", "b/y", "c"], id="an excluded folder is not entered"
        ),
        pytest.param(
            {"excludes": ["a", "!a/x"]},
            ["a", "a/x", "b", "b/x", "b/y", "c"],
            id="unless an exception lies in it, which brings its folder with it",
        ),
        pytest.param(
            {"excludes": ["**", "!**/y"]}, ["a", "a/y", "b", "b/y"], id="exceptions with wildcards"
        ),
        pytest.param(
            {"includes": ["a/x"]}, ["a", "a/x"], id="parents come first where only a child matches"
        ),
        pytest.param(
            {"includes": ["**/x"]}, ["a", "a/x", "b", "b/x"], id="only parents that have a match"
        ),
        pytest.param({"includes": ["a/x/z"]}, [], id="no parents where nothing matches"),
        pytest.param({"includes": ["b/"]}, ["b", "b/x", "b/y"], id="a folder includes all in it"),
        pytest.param(
            {"includes": ["a", "c"], "excludes": ["**/x"]}, ["a", "a/y", "c"], id="both at once"
        ),
        pytest.param(
            {"includes": ["c"], "follow": ["b/y"]}, ["b", "b/y", "c"], id="followed ones are added"
        ),
        pytest.param(
            {"includes": ["c"], "follow": ["."]},
            ["c"],
            id="following the root adds nothing to other patterns",
        ),
        pytest.param(
            {"follow": ["."]},
            ["a", "a/x", "a/y", "b", "b/x", "b/y", "c"],
            id="and alone it is no filter",
        ),
    ],
)
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_patterns_decide_what_is_sent(
    tmp_path: Path, where: str, request_: dict[str, list[str]], paths: list[str]
) -> None:
    names = ["a/x", "a/y", "b/x", "b/y", "c"]
    tree: Tree = planted(tmp_path, *names)
    if where == "memory":
        tree = Files(dict.fromkeys(names, b"."))

    assert list(sent(tree, **request_)) == paths


@pytest.mark.parametrize(
    ("links", "paths", "found"),
    [
        pytest.param({}, ["a"], ["a"], id="a path that does not exist is kept"),
        pytest.param({"l": "d"}, ["l"], ["d", "l"], id="a link brings its target"),
        pytest.param({"l": "d"}, ["l/f"], ["d/f", "l"], id="a link on the way, too"),
        pytest.param({"l": "m", "m": "d"}, ["l/f"], ["d/f", "l", "m"], id="links to links"),
        pytest.param(
            {"e/l": "../d"}, ["e/l/f"], ["d/f", "e/l"], id="a link relative to its folder"
        ),
        pytest.param({"l": "/d"}, ["l"], ["d", "l"], id="an absolute link begins at the root"),
        pytest.param({"l": "../../etc"}, ["l"], ["etc", "l"], id="no link leaves the root"),
        pytest.param({"l": "m", "m": "l"}, ["l"], ["l", "m"], id="a circle ends"),
        pytest.param({"l": "l/l"}, ["l"], ["l"], id="so does a spiral"),
        pytest.param({"l": "."}, ["l"], None, id="a link to the root means all"),
        pytest.param({}, ["/"], None, id="so does the root itself"),
        pytest.param({"x1": "d", "x2": "e"}, ["x*"], ["d", "e", "x*"], id="a glob finds links"),
        pytest.param({"x1": "d"}, [r"x\*"], [r"x\*"], id="an escaped star is no glob"),
        pytest.param({"x1": "d"}, ["*/f"], ["*", "d/f"], id="a glob on the way"),
        pytest.param({}, ["d", "d/f"], ["d"], id="what lies in another is dropped"),
        pytest.param({}, ["d/f/x"], ["d/f/x"], id="a file on the way is no folder"),
        pytest.param({}, ["../d", "d/../.."], [".."], id="above the root is nothing"),
    ],
)
def test_links_are_followed_inside_of_the_tree(
    tmp_path: Path, links: Links, paths: list[str], found: list[str] | None
) -> None:
    tree = planted(tmp_path, "d/f", links=links)

    assert follow_links(tree, paths) == found


class Meanwhile(Directory):
    """A directory in which something happens each time before a folder is listed."""

    def __init__(self, root: Path, happens: Callable[[str], object]) -> None:
        super().__init__(root)
        self._happens = happens

    def entries(self, folder: str) -> list[Entry]:
        self._happens(folder)
        return super().entries(folder)


def test_a_folder_that_may_not_be_read_matters_only_where_it_is_wanted(tmp_path: Path) -> None:
    planted(tmp_path, "d/f", "e")

    def deny(folder: str) -> None:
        if folder == "d":
            raise PermissionError(13, "Permission denied", folder)

    tree = Meanwhile(tmp_path, deny)

    assert list(sent(tree, excludes=["d", "!**/g"])) == ["e"]
    with pytest.raises(PermissionError, match="'d'"):
        sent(tree)


def test_a_folder_that_vanishes_meanwhile_is_empty(tmp_path: Path) -> None:
    planted(tmp_path, "a/", "b")

    def remove(folder: str) -> None:
        if folder == "a":
            (tmp_path / "a").rmdir()

    tree = Meanwhile(tmp_path, remove)

    assert list(sent(tree)) == ["a", "b"]


def test_a_folder_that_becomes_a_link_meanwhile_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/secret").write_text("s")
    planted(tmp_path / "in", "a/f")

    def swap(folder: str) -> None:
        if folder == "a":
            (tmp_path / "in/a").rename(tmp_path / "old")
            (tmp_path / "in/a").symlink_to(tmp_path / "out")

    tree = Meanwhile(tmp_path / "in", swap)

    assert list(sent(tree)) == ["a"]
    with pytest.raises(NotADirectoryError):
        tree.open("a/secret")
    with pytest.raises(NotADirectoryError):
        tree.entry("a/secret")


@pytest.mark.parametrize("path", ["../x", "a/../../x"])
def test_no_path_leads_out_of_a_directory(tmp_path: Path, path: str) -> None:
    planted(tmp_path, "x", "in/a/f")
    tree = Directory(tmp_path / "in")

    with pytest.raises(FileNotFoundError):
        tree.open(path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        sent(Directory(tmp_path / "absent"))


def test_a_link_to_a_directory_is_that_directory(tmp_path: Path) -> None:
    planted(tmp_path, "d/f", links={"l": "d"})

    assert list(sent(Directory(tmp_path / "l"))) == ["f"]


def test_a_name_that_is_not_utf_8_is_refused_unless_it_is_ignored(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    tree = planted(tmp_path, "f")
    (tmp_path / name).mkdir()
    (tmp_path / name / "x").write_text("x")

    assert list(sent(tree, excludes=["caf?", "!**/y"])) == ["f"]
    with pytest.raises(ValueError, match=r"b'caf\\xe9' is not UTF-8; BuildKit's protocol"):
        sent(tree)


def test_very_deep_folders_are_walked(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 1500)
    tree = Files({f"{deep}/f": b"x"})

    assert len(sent(tree, includes=["**/f"])) == 1501


def test_files_in_memory_are_plain_and_of_the_epoch() -> None:
    found = sent(Files({"d/f": b"abc"}))

    assert found["d"] == Stat(path="d", mode=GO_FOLDER | 0o755)
    assert found["d/f"] == Stat(path="d/f", mode=0o644, size=3)


@pytest.mark.parametrize(
    "path", ["", ".", "/a", "a/", "a//b", "./a", "a/../b", "..", "../a", "a\0b", "\udcff"]
)
def test_files_in_memory_have_clean_paths(path: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        Files({path: b""})


def test_a_file_in_memory_cannot_be_a_folder_as_well() -> None:
    with pytest.raises(ValueError, match="'a' cannot be a file and a folder at once"):
        Files({"a": b"", "a/b": b""})


def test_what_is_not_there_in_memory_is_not_found() -> None:
    tree = Files({"a/b": b""})
    for look in (tree.open, tree.entry, tree.entries):
        with pytest.raises(FileNotFoundError):
            look("x/y")


def test_keys_say_what_may_be_shared(tmp_path: Path) -> None:
    same = Files({"a": b"1"}).key

    assert same == Files({"a": b"1"}).key
    # Equal in size and time: a daemon that takes both for one would keep the old content.
    assert same != Files({"a": b"2"}).key
    assert same != Files({"b": b"1"}).key
    assert Directory(tmp_path).key == Directory(tmp_path).key != Directory(tmp_path / "x").key


PATHS = st.lists(st.text("ab-.é", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)


@given(st.dictionaries(PATHS, st.just(b""), max_size=12))
def test_the_receivers_rules_always_hold(files: dict[str, bytes]) -> None:
    try:
        tree = Files(files)
    except ValueError:
        return
    paths = list(sent(tree))
    seen = {""}
    for path in paths:
        assert path.rpartition("/")[0] in seen
        seen.add(path)

    assert paths == sorted(paths, key=lambda path: path.encode().split(b"/"))
    assert set(files) <= set(paths)
