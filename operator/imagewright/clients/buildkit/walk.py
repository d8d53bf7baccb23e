"""Which entries of a tree are sent, in which order, and how fsutil describes each of them.

The rules are those of tonistiigi/fsutil (filter.go, followlinks.go, stat_unix.go), and its
receiver checks them: a folder comes before what lies in it, names are in the order of their bytes,
and a hard link names a path that was sent before.
"""

import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from imagewright.clients.buildkit.globs import match_name
from imagewright.clients.buildkit.patterns import Patterns, State
from imagewright.clients.buildkit.proto.fsutil_pb2 import Stat
from imagewright.clients.buildkit.trees import Entry, Tree, vanished

# Bits of Go's os.FileMode. That of a socket is missing on purpose: fsutil clears it.
GO_FOLDER = 1 << 31
GO_SYMLINK = 1 << 27
GO_DEVICE = 1 << 26
GO_FIFO = 1 << 25
GO_SETUID = 1 << 23
GO_SETGID = 1 << 22
GO_CHARACTER = 1 << 21
GO_STICKY = 1 << 20
GO_TYPE = GO_FOLDER | GO_SYMLINK | GO_DEVICE | GO_FIFO | GO_CHARACTER

GO_BITS = {
    stat.S_IFDIR: GO_FOLDER,
    stat.S_IFLNK: GO_SYMLINK,
    stat.S_IFIFO: GO_FIFO,
    stat.S_IFBLK: GO_DEVICE,
    stat.S_IFCHR: GO_DEVICE | GO_CHARACTER,
}
WILD = re.compile(r"^(?:[^\\]|\\.)*?[*?\[]", re.DOTALL)
SPECIAL_BITS = {stat.S_ISUID: GO_SETUID, stat.S_ISGID: GO_SETGID, stat.S_ISVTX: GO_STICKY}


@dataclass(frozen=True, slots=True)
class Request:
    """What a daemon wants of a tree, in its own words."""

    includes: Sequence[str] = ()
    excludes: Sequence[str] = ()
    follow: Sequence[str] = ()
    """Paths that are included too, with all that the symlinks on the way to them point to."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Of one path: whether it is sent, and whether anything below it can be."""

    wanted: bool = True
    descend: bool = True
    included: State | None = None
    excluded: State | None = None


@dataclass(slots=True)
class _Level:
    """A folder that is being walked through."""

    path: str
    unsent: Entry | None
    """The folder itself, as long as nobody has wanted it or anything in it."""
    rest: Iterator[Entry]
    verdict: _Verdict


def walk(tree: Tree, request: Request) -> Iterator[Stat]:
    """What to send, in order. Blocks. A folder is sent, too, where only something in it is wanted.

    Raises PatternError for a bad pattern, ValueError for a name that cannot be sent, OSError for
    what may not be read; what vanishes meanwhile is left out.
    """
    return _Walk(tree, request).stats()


def is_file(mode: int) -> bool:
    """Whether a receiver may ask for the content of an entry with these bits of Go's FileMode."""
    return not mode & GO_TYPE


class _Walk:
    def __init__(self, tree: Tree, request: Request) -> None:
        self._tree = tree
        includes = list(request.includes)
        if request.follow and (found := follow_links(tree, request.follow)) is not None:
            includes = _without_nested([*includes, *found]) or []
        self._includes = Patterns(includes)
        self._excludes = Patterns(request.excludes)
        self._names: dict[tuple[int, int], str] = {}

    def stats(self) -> Iterator[Stat]:
        levels = [_Level("", None, iter(self._tree.entries("")), _Verdict())]
        while levels:
            level = levels[-1]
            entry = next(level.rest, None)
            if entry is None:
                levels.pop()
                continue
            path = f"{level.path}/{entry.name}" if level.path else entry.name
            verdict = self._judge(path, entry, level.verdict)
            if verdict.wanted:
                yield from self._unsent(levels)
                yield self._describe(path, entry)
            if entry.is_folder and verdict.descend:
                unsent = None if verdict.wanted else entry
                levels.append(_Level(path, unsent, self._below(path, verdict), verdict))

    def _unsent(self, levels: list[_Level]) -> Iterator[Stat]:
        """The folders on the way that nobody asked for. Those above a sent one have been sent."""
        if levels[-1].unsent is None:
            return
        for level in levels:
            if level.unsent is not None:
                yield self._describe(level.path, level.unsent)
                level.unsent = None

    def _judge(self, path: str, entry: Entry, parent: _Verdict) -> _Verdict:
        wanted = descend = True
        included = excluded = None
        if self._includes:
            wanted, included = self._includes.match(path, parent.included)
            if not wanted and entry.is_folder:
                descend = self._includes.reach_below(path, exceptions=False)
        if self._excludes:
            hit, excluded = self._excludes.match(path, parent.excluded)
            wanted = wanted and not hit
            if hit and entry.is_folder:
                descend = descend and self._excludes.reach_below(path, exceptions=True)
        return _Verdict(wanted, descend, included, excluded)

    def _below(self, folder: str, verdict: _Verdict) -> Iterator[Entry]:
        try:
            return iter(self._tree.entries(folder))
        except OSError as error:
            spared = isinstance(error, PermissionError) and not verdict.wanted
            if spared or vanished(error):
                return iter(())
            raise

    def _describe(self, path: str, entry: Entry) -> Stat:
        described = Stat(
            path=_text(path),
            mode=go_mode(entry.mode),
            size=0 if entry.is_folder else entry.size,
            modTime=entry.mtime_ns,
            linkname=_text(entry.target),
            devmajor=os.major(entry.device),
            devminor=os.minor(entry.device),
            xattrs=entry.xattrs,
        )
        if entry.inode:
            first = self._names.setdefault(entry.inode, path)
            if first != path and not entry.target:
                described.linkname = first
        return described


def go_mode(mode: int) -> int:
    """Bits of Go's os.FileMode for those of stat(2)."""
    bits = mode & 0o777 | GO_BITS.get(stat.S_IFMT(mode), 0)
    for special, meaning in SPECIAL_BITS.items():
        if mode & special:
            bits |= meaning
    return bits


def follow_links(tree: Tree, paths: Iterable[str]) -> list[str] | None:
    """The paths, and the paths that symlinks on the way to them lead to, as include patterns.

    A part of a path may be a glob. Links are resolved as if the root of the tree were that of the
    file system. None means all: a link led to the root itself. Blocks.
    """
    seen: set[str] = set()
    todo = [posixpath.normpath(f"./{path}") for path in paths][::-1]
    while todo:
        todo += _follow(tree, todo.pop(), seen)[::-1]
    return _without_nested(sorted(seen))


def _follow(tree: Tree, path: str, seen: set[str]) -> list[str]:
    """Walk along a path to its end, or to the first symlink: then what is to follow instead."""
    current, rest = "", path
    while True:
        name, _, rest = rest.partition("/")
        current = posixpath.join(current, name)
        targets = _links(tree, current)
        if not rest or targets:
            if current in seen:
                return []
            seen.add(current)
            return [_rooted(f"{target}/{rest}") for target in targets]


def _links(tree: Tree, path: str) -> list[str]:
    """Where the symlink at this path leads, or all those that its last part, a glob, matches."""
    folder, name = posixpath.split(path)
    try:
        if WILD.search(name):
            found = [entry for entry in tree.entries(folder) if match_name(name, entry.name)]
        else:
            found = [tree.entry(path)] if name not in (".", "..") else []
    except OSError as error:
        if vanished(error):
            return []
        raise
    return [posixpath.join(folder, entry.target) for entry in found if entry.target]


def _rooted(path: str) -> str:
    """Where a link leads: `..` does not leave the root, which is `.`."""
    return posixpath.normpath("/" + path).lstrip("/") or "."


def _without_nested(paths: list[str]) -> list[str] | None:
    """Paths that do not lie below the one before; None where one of them is the root."""
    kept: list[str] = []
    for path in paths:
        if path == ".":
            return None
        if not path.startswith((kept[-1] if kept else "") + "/"):
            kept.append(path)
    return kept


def _text(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"The name {os.fsencode(path)!r} is not UTF-8; BuildKit's protocol cannot carry it."
        ) from error
    return path
