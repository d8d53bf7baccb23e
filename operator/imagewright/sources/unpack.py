"""Archives unpacked into a folder, and never outside of it, whatever their names and links say.

Nothing is taken on trust from `tarfile`: it only reads headers. Every folder on the way to a name
is looked at, a link among them is followed as if the folder were the root of all, and what is at
the name already is removed, never written through. Nobody else writes to the folder meanwhile.

Modes are kept, setuid bits too, as Docker keeps those of a context: they end up in the image. Only
what would keep ourselves from reading is added: 0400 for files, 0500 for folders. Owners are not
kept: no builder heeds those of a context.
"""

import asyncio
import errno
import os
import posixpath
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

from imagewright.sources.archive import PIECE, Bounded, Caps, Unpackable
from imagewright.sources.removal import remove

HEADER = 2 << 20
"""Bytes that may pass before the next name is known; a name takes 4 KiB, its attributes 64 KiB."""
LATEST = 1 << 33
HOPS = 40
"""Links on the way to one name, as Linux allows."""
UNNAMEABLE = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP})
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


class Stopped(Exception):
    """Somebody asked for the end."""


class _Member(tarfile.TarInfo):
    """tarfile takes a broken header that is not the first for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """The next header."""
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ in {"InvalidHeaderError", "TruncatedHeaderError"}:
                raise Unpackable(f"The archive is broken: {error}.") from error
            raise


class Unpacking:
    """A folder that archives are unpacked into, one over the other; all methods block.

    With `layer` they are layers of an image: names marked `.wh.` remove what lower ones brought,
    links may point anywhere, since an image is a root of its own, and names may begin with `/`.
    """

    def __init__(self, root: Path, caps: Caps, *, layer: bool = False) -> None:
        self._root, self._caps, self._layer = str(root), caps, layer
        self._files = self._size = 0
        self._folders: dict[str, tuple[int, float]] = {}
        self._fresh: set[str] = set()
        self.stop = threading.Event()

    def add(self, file: BinaryIO) -> None:
        """Unpack an archive, in any compression. Raises Unpackable, Stopped; OSError of a disk."""
        plain = Bounded(file, self._caps)
        # Opening reads the first header already.
        plain.allow = HEADER
        self._fresh = set()
        try:
            with tarfile.open(fileobj=plain, mode="r|", tarinfo=_Member) as archive:  # type: ignore[call-overload]  # it needs read() only
                for member in _members(archive, plain):
                    self._check()
                    self._size += member.size
                    self._files += 1
                    self._bounded(member)
                    self._put(member, archive, plain)
        except (tarfile.TarError, ValueError, UnicodeError) as error:
            raise Unpackable(f"The archive is broken: {error}.") from error
        except OSError as error:
            if error.errno in UNNAMEABLE:
                raise Unpackable(f"The archive holds a name too long: {error}.") from error
            raise

    def finish(self) -> None:
        """Give the folders their modes and times: until now we had to write to them."""
        for path, (mode, time) in sorted(self._folders.items(), reverse=True):
            if os.path.isdir(path) and not os.path.islink(path):
                os.chmod(path, mode & 0o7777 | 0o500)
                os.utime(path, (time, time))

    def _check(self) -> None:
        if self.stop.is_set():
            raise Stopped

    def _bounded(self, member: tarfile.TarInfo) -> None:
        if self._files > self._caps.files:
            raise Unpackable(f"The archive holds more than {self._caps.files} files: the limit.")
        if member.size < 0:
            raise Unpackable(f"The archive's {_shown(member.name)} has a size below zero.")
        if self._size > self._caps.out:
            raise Unpackable(
                f"The archive unpacks to more than {self._caps.out >> 20} MiB, which is the limit."
            )

    def _put(self, member: tarfile.TarInfo, archive: tarfile.TarFile, plain: Bounded) -> None:
        name = self._named(member)
        if not name:
            return
        parent, base = posixpath.split(name)
        folder = self._folder(parent, name)
        if self._layer and base.startswith(WHITEOUT):
            self._white_out(folder, base)
            return
        if member.isdir():
            self._make_folder(posixpath.join(folder, base), member)
            return
        path = posixpath.join(folder, base)
        if member.islnk():
            self._link(path, member)
        elif member.issym():
            self._symlink(path, name, member)
        elif member.isreg():
            self._write(path, member, archive, plain)
        else:
            raise Unpackable(f"The archive holds {_shown(name)}, a device, fifo or unknown type.")
        self._fresh.add(path)

    def _named(self, member: tarfile.TarInfo) -> str:
        """The member's path from the root, clean; empty for the root itself."""
        name = member.name
        if self._layer:
            name = name.lstrip("/")
        elif name.startswith("/"):
            raise _escape(name)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise _escape(name)
        if "\0" in name:
            raise Unpackable(f"The archive holds {_shown(name)}, which no file can be called.")
        return "/".join(parts)

    def _folder(self, path: str, name: str) -> str:
        """Where the folder really is, made where it is missing; links lead nowhere outside."""
        todo, place, hops = path.split("/")[::-1] if path else [], self._root, 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                place = posixpath.dirname(place) if place != self._root else place
                continue
            here = posixpath.join(place, part)
            if os.path.islink(here):
                hops += 1
                target = os.readlink(here)
                if hops > HOPS:
                    raise Unpackable(f"The archive's {_shown(name)} lies behind a loop of links.")
                place = self._root if target.startswith("/") else place
                todo += target.split("/")[::-1]
                continue
            if not os.path.isdir(here):
                self._clear(here)
                os.mkdir(here, 0o755)
            place = here
        return place

    def _make_folder(self, path: str, member: tarfile.TarInfo) -> None:
        if os.path.islink(path) or not os.path.isdir(path):
            self._clear(path)
            os.mkdir(path, 0o755)
        self._folders[path] = (member.mode, _time(member))
        self._fresh.add(path)

    def _write(
        self, path: str, member: tarfile.TarInfo, archive: tarfile.TarFile, plain: Bounded
    ) -> None:
        self._clear(path)
        plain.allow = self._caps.out
        content = archive.extractfile(member)
        assert content is not None, "a regular file has content"  # noqa: S101  # for the types
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            while data := content.read(PIECE):
                self._check()
                file.write(data)
            if file.tell() != member.size:
                raise Unpackable(f"The archive ends within {_shown(member.name)}.")
            file.flush()
            os.fchmod(file.fileno(), member.mode & 0o7777 | 0o400)
            os.utime(file.fileno(), (_time(member), _time(member)))

    def _link(self, path: str, member: tarfile.TarInfo) -> None:
        """Another name of a file that came before."""
        target = _Named(member.linkname)
        parent, base = posixpath.split(self._named(target))
        source = posixpath.join(self._folder(parent, member.linkname), base)
        # What lies in the very folder that it replaces would go with it.
        inside = source.startswith(f"{path}/")
        if inside or os.path.islink(source) or not os.path.isfile(source):
            raise Unpackable(
                f"The archive's {_shown(member.name)} is a link to {_shown(member.linkname)}, "
                "which is no file that comes before it."
            )
        if source != path:
            self._clear(path)
            os.link(source, path)

    def _symlink(self, path: str, name: str, member: tarfile.TarInfo) -> None:
        target = member.linkname
        if not self._layer:
            landed = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
            if target.startswith("/") or landed == ".." or landed.startswith("../"):
                raise Unpackable(
                    f"The archive's {_shown(name)} is a link out of it, to {_shown(target)}: pack "
                    "the file itself."
                )
        if not target:
            raise Unpackable(f"The archive's {_shown(name)} is a link to nothing.")
        self._clear(path)
        os.symlink(target, path)

    def _clear(self, path: str) -> None:
        """Remove what is at a path, if anything is: what comes later in an archive counts."""
        if os.path.lexists(path):
            remove(path)

    def _white_out(self, folder: str, base: str) -> None:
        """Remove what lower layers brought, and nothing of this one."""
        if base != OPAQUE:
            gone = posixpath.join(folder, base.removeprefix(WHITEOUT))
            if posixpath.basename(gone) in ("", ".", ".."):
                raise Unpackable(f"The layer removes {_shown(base)}, which is no name.")
            if gone not in self._fresh:
                self._clear(gone)
            return
        kept = set(self._fresh)
        for path in self._fresh:
            while len(path) > len(folder) and (path := posixpath.dirname(path)) not in kept:
                kept.add(path)
        self._empty(folder, kept)

    def _empty(self, folder: str, kept: set[str]) -> None:
        """Remove what is below a folder and not kept."""
        todo = [folder]
        while todo:
            with os.scandir(todo.pop()) as entries:
                for entry in list(entries):
                    if entry.path not in kept:
                        self._clear(entry.path)
                    elif entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)


class _Named(tarfile.TarInfo):
    """A path that is checked as a member's is."""


async def in_thread(unpacking: Unpacking, work: Callable[[], None]) -> None:
    """Run it in a thread; cancelled, it is told to stop, and waited for."""
    task = asyncio.create_task(asyncio.to_thread(work))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
            unpacking.stop.set()
    if cancelled is not None:
        task.exception()
        raise cancelled
    task.result()


def _members(archive: tarfile.TarFile, plain: Bounded) -> Iterator[tarfile.TarInfo]:
    while True:
        plain.allow = HEADER
        member = archive.next()
        if member is None:
            return
        # It would keep all of them.
        vars(archive)["members"].clear()
        yield member


def _time(member: tarfile.TarInfo) -> float:
    """Seconds since the epoch; 0 for what no disk can note, which nan is, too."""
    return member.mtime if 0 <= member.mtime < LATEST else 0


def _escape(name: str) -> Unpackable:
    return Unpackable(
        f"The archive holds {_shown(name)}, which lies outside of it: pack it with relative names "
        "that have no '..'."
    )


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:80] + "...")
