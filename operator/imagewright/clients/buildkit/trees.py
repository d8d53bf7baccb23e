"""What can be sent to a daemon as a local source: a directory, or files in memory.

A tree is asked for one folder at a time, and never follows a symlink: what lies outside of a
directory stays there, also when somebody exchanges its folders for links meanwhile.
"""

import errno
import hashlib
import io
import os
import posixpath
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A fifo that took the place of a file must not stop us.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

GONE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO))
"""ELOOP is a symlink in the place of a file or folder, ENXIO a socket in that of a file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder: what lstat(2) says of it that matters to an image."""

    name: str
    mode: int
    size: int = 0
    mtime_ns: int = 0
    target: str = ""
    """Of a symlink."""
    device: int = 0
    """Of a device: its number, as in `st_rdev`."""
    inode: tuple[int, int] | None = None
    """Where a file has more than one name: what its names have in common."""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        """Whether it has entries of its own; a link to a folder has not."""
        return stat.S_ISDIR(self.mode)


def vanished(error: OSError) -> bool:
    """Whether something is simply not there any more, or has become something else."""
    return error.errno in GONE


class Tree(Protocol):
    """A tree of files. Paths are relative, with slashes; the root is the empty path.

    All methods may block and are called in threads. They raise OSError where something has
    vanished or may not be read.
    """

    @property
    def key(self) -> str:
        """The same for trees between which a daemon may spare files of equal size and time."""
        ...

    def entries(self, folder: str) -> list[Entry]:
        """What a folder holds, sorted by the bytes of the names."""
        ...

    def entry(self, path: str) -> Entry:
        """What is at this path."""
        ...

    def open(self, path: str) -> BinaryIO:
        """The content of a regular file."""
        ...


class Directory:
    """A directory on disk. `xattrs`: whether extended attributes are sent, as buildctl does."""

    def __init__(self, root: str | os.PathLike[str], *, xattrs: bool = True) -> None:
        self._root = Path(root)
        self._xattrs = xattrs

    @property
    def key(self) -> str:
        """Says where the directory is; the times of its files say what has changed."""
        place = f"{socket.gethostname()}:{self._root.absolute()}"
        return hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()

    def entries(self, folder: str) -> list[Entry]:
        """What a folder holds, sorted by the bytes of the names."""
        opened = self._folder(folder)
        try:
            names = sorted(os.listdir(opened), key=os.fsencode)  # noqa: PTH208  # of a descriptor
            return [entry for name in names if (entry := self._look(opened, name))]
        finally:
            os.close(opened)

    def entry(self, path: str) -> Entry:
        """What is at this path."""
        folder, name = posixpath.split(path)
        opened = self._folder(folder)
        try:
            found = self._look(opened, name)
        finally:
            os.close(opened)
        if found is None:
            raise _missing(path)
        return found

    def open(self, path: str) -> BinaryIO:
        """The content of a regular file; FileNotFoundError also where it is no longer one."""
        folder, name = posixpath.split(path)
        parent = self._folder(folder)
        try:
            opened = os.open(name, FILE, dir_fd=parent)
        finally:
            os.close(parent)
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            raise _missing(path)
        return io.FileIO(opened)

    def _folder(self, path: str) -> int:
        """A descriptor of a folder, reached name by name from the root."""
        opened = os.open(self._root, FOLDER)
        for name in path.split("/") if path else ():
            outer = opened
            try:
                if name == "..":
                    raise _missing(path)
                opened = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=outer)
            finally:
                os.close(outer)
        return opened

    def _look(self, folder: int, name: str) -> Entry | None:
        """The entry, or None where it has just gone."""
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            is_link = stat.S_ISLNK(found.st_mode)
            target = os.readlink(name, dir_fd=folder) if is_link else ""
        except FileNotFoundError:
            return None
        several = found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode)
        return Entry(
            name=name,
            mode=found.st_mode,
            size=found.st_size,
            mtime_ns=found.st_mtime_ns,
            target=target,
            device=found.st_rdev,
            inode=(found.st_dev, found.st_ino) if several else None,
            xattrs=_xattrs(f"/proc/self/fd/{folder}/{name}") if self._xattrs else {},
        )


class Files:
    """Files in memory, by path: mode 0644, in folders of mode 0755, all of the epoch.

    Raises ValueError for a path that is not relative and clean, or that is a folder as well.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = dict(files)
        self._folders: dict[str, dict[str, Entry]] = {"": {}}
        for path, content in self._files.items():
            _check(path)
            self._add(path, len(content))
        for path in self._files:
            if path in self._folders:
                raise ValueError(f"{path!r} cannot be a file and a folder at once.")

    @property
    def key(self) -> str:
        """A digest of all that is in it: a time that never changes cannot say what has changed."""
        digest = hashlib.sha256()
        for path, content in sorted(self._files.items()):
            digest.update(f"{len(path.encode())} {len(content)} {path}".encode() + content)
        return digest.hexdigest()

    def entries(self, folder: str) -> list[Entry]:
        """What a folder holds, sorted by the bytes of the names."""
        found = self._folders.get(folder)
        if found is None:
            raise _missing(folder)
        return sorted(found.values(), key=lambda entry: entry.name.encode())

    def entry(self, path: str) -> Entry:
        """What is at this path."""
        folder, name = posixpath.split(path)
        found = self._folders.get(folder, {}).get(name)
        if found is None:
            raise _missing(path)
        return found

    def open(self, path: str) -> BinaryIO:
        """The content of a file."""
        if path not in self._files:
            raise _missing(path)
        return io.BytesIO(self._files[path])

    def _add(self, path: str, size: int) -> None:
        """Put a file into its folder, and that into its own, up to the first that was there."""
        entry = Entry(posixpath.basename(path), stat.S_IFREG | 0o644, size)
        while True:
            path = posixpath.dirname(path)
            known = path in self._folders
            self._folders.setdefault(path, {}).setdefault(entry.name, entry)
            if known:
                return
            entry = Entry(posixpath.basename(path), stat.S_IFDIR | 0o755)


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _check(path: str) -> None:
    first = path.partition("/")[0]
    if first in ("", ".", "..") or path != posixpath.normpath(path):
        raise ValueError(
            f"{path!r} is no path of a file: write it relative, without . or .. in it."
        )
    if "\0" in path or any("\ud800" <= char <= "\udfff" for char in path):
        raise ValueError(f"{path!r} has characters that no name of a file in an image may have.")


def _xattrs(path: str) -> dict[str, bytes]:
    """Extended attributes, as far as they can be read; those of macOS mean nothing in an image."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    found = {}
    for name in names:
        if name.startswith("com.apple."):
            continue
        try:
            found[name] = os.getxattr(path, name, follow_symlinks=False)
        except OSError:
            continue
    return found
