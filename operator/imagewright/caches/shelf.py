"""Fetched trees on a disk: a folder an entry, and no index beside them that could disagree.

```
lock                        held while a process uses the folder
temp/<anything>/            on its way in or out; swept when the folder is opened
entries/<id>.<anything>/    whole; it came here by one rename
    name                    what it is, as text: the id is made of it
    tree/                   the files
```

All of it may block, and is called in threads. The folder is closed to other users, so the modes of
the files, which are those of the source, let nobody in.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imagewright.api.reason import Reason
from imagewright.ports import Unavailable

NAME, TREE = "name", "tree"
PAGE = 4096
"""Bytes. What every file and folder is rounded up to, since most disks give out no less."""
OURS = 0o700


@dataclass(frozen=True, slots=True)
class Entry:
    """A tree that is there whole. `size` is bytes of disk, `used` seconds since the epoch."""

    id: str
    kind: str
    name: str
    folder: Path
    size: int
    used: float

    @property
    def tree(self) -> Path:
        """Where the files are."""
        return self.folder / TREE


class Shelf:
    """The folder of one process's trees. Raises Unavailable where another process has it."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._entries, self._temp = folder / "entries", folder / "temp"
        self._lock = -1

    def open(self) -> list[Entry]:
        """Take the folder, sweep what a killed process left in it, and list what is whole."""
        try:
            for folder in (self._root, self._entries, self._temp):
                folder.mkdir(mode=OURS, parents=True, exist_ok=True)
            self._root.chmod(OURS)
            self._lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._take()
            self._empty(self._temp.iterdir())
            return self._found()
        except OSError as error:
            raise self._broken(error) from error

    def close(self) -> None:
        """Give the folder back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def stage(self) -> Path:
        """A new folder for what is not whole yet. Raises OSError."""
        return Path(tempfile.mkdtemp(dir=self._temp))

    def place(self, staged: Path, kind: str, name: str, now: float) -> Entry:
        """Make a staged folder, with its files in `tree`, an entry. Raises OSError."""
        (staged / NAME).write_text(f"{kind}\n{name}", "utf-8", "surrogateescape")
        size = measure(staged)
        os.utime(staged, (now, now))
        own = id_of(kind, name)
        # No two folders have one name: an entry may be on its way out while it comes in anew.
        place = self._entries / f"{own}.{staged.name}"
        staged.rename(place)
        return Entry(own, kind, name, place, size, now)

    def touch(self, entry: Entry, now: float) -> None:
        """Note on the disk that the entry was used."""
        try:
            os.utime(entry.folder, (now, now))
        except OSError as error:
            raise self._broken(error) from error

    def remove(self, entries: Iterable[Entry]) -> None:
        """Take the entries away: each is out of view at once, and then deleted."""
        for entry in entries:
            leaving = self._temp / entry.folder.name
            try:
                entry.folder.rename(leaving)
                self._empty([leaving])
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._broken(error) from error

    def discard(self, staged: Path) -> None:
        """Delete a staged folder, if it is still there."""
        try:
            self._empty([staged])
        except OSError as error:
            raise self._broken(error) from error

    def free(self) -> int:
        """Bytes that the disk has left."""
        try:
            return shutil.disk_usage(self._root).free
        except OSError as error:
            raise self._broken(error) from error

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise Unavailable(
                f"The source cache {self._root} is in use by another process: give each operator "
                "a folder of its own."
            ) from error

    def _found(self) -> list[Entry]:
        """What is whole; of two trees of one name the one that was used last."""
        found: dict[str, Entry] = {}
        spare = []
        for folder in self._entries.iterdir():
            entry = _read(folder)
            if entry is None:
                spare.append(folder)
                continue
            older = found.get(entry.id)
            if older is None or older.used < entry.used:
                found[entry.id], entry = entry, older
            if entry is not None:
                spare.append(entry.folder)
        self._empty(spare)
        return sorted(found.values(), key=lambda entry: entry.used)

    def _empty(self, folders: Iterable[Path]) -> None:
        for folder in list(folders):
            remove_tree(folder)

    def _broken(self, error: OSError) -> Unavailable:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        return Unavailable(
            f"The source cache {self._root} cannot be used: {error.strerror or error}.",
            Reason.DISK_FULL if full else Reason.SOURCE_UNAVAILABLE,
        )


def id_of(kind: str, name: str) -> str:
    """The id of the tree of that name."""
    digest = hashlib.sha256(f"{kind}\n{name}".encode(errors="surrogateescape"))
    return f"{kind.rpartition('.')[2]}-{digest.hexdigest()}"


def measure(folder: Path) -> int:
    """Bytes of disk that a folder takes: each file once, whatever names it has, in whole pages."""
    total, seen = PAGE, set[tuple[int, int]]()
    for entry in _below(folder):
        found = entry.stat(follow_symlinks=False)
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            own = (found.st_dev, found.st_ino)
            if own in seen:
                continue
            seen.add(own)
        size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
        total += max(PAGE, -(-size // PAGE) * PAGE)
    return total


def remove_tree(folder: Path) -> None:
    """Delete a folder with all that is in it, also folders that may not be written."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except PermissionError:
        folder.chmod(OURS)
        for entry in _below(folder):
            if entry.is_dir(follow_symlinks=False):
                Path(entry.path).chmod(OURS)
        shutil.rmtree(folder)


def _below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Everything in a folder; a folder comes before what is in it, and no link is followed."""
    todo = [str(folder)]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)


def _read(folder: Path) -> Entry | None:
    """The entry in a folder, or None where it is not what its name says."""
    try:
        text = (folder / NAME).read_text("utf-8", "surrogateescape")
        used = folder.stat().st_mtime
        if not (folder / TREE).is_dir():
            return None
        size = measure(folder)
    except OSError:
        return None
    kind, _, name = text.partition("\n")
    own = id_of(kind, name)
    if folder.name.partition(".")[0] != own:
        return None
    return Entry(own, kind, name, folder, size, used)
