"""Which of some names a base image has.

A layer must not hide what is not there. Engines that keep layers as overlays make a whiteout of a
device with the numbers 0 and 0; in a folder that no lower layer has, the kernel does not see what
it is for, and who lists such a folder stumbles over it and misses the rest.
"""

import posixpath
from collections.abc import Collection, Iterator

from imagewright.images.tar import HIDDEN, OPAQUE, Entry, clean


class Presence:
    """Layers are applied to it from the lowest up; then it knows of `asked` which are there."""

    def __init__(self, asked: Collection[str]) -> None:
        self._asked = frozenset(asked)
        self._above = frozenset(above for path in asked for above in parents(path))
        self._there: set[str] = set()

    def __contains__(self, path: object) -> bool:
        return path in self._there

    def apply(self, entries: Iterator[Entry]) -> None:
        """Put the next layer on top. Raises BadLayer."""
        added: list[tuple[str, bool]] = []
        for entry in entries:
            path = clean(entry.name)
            folder, name = posixpath.split(path)
            if name == OPAQUE:
                self._remove(folder, itself=False)
            elif name.startswith(HIDDEN):
                self._remove(posixpath.join(folder, name.removeprefix(HIDDEN)))
            elif self._matters(path):
                added.append((path, entry.is_folder))
        # What hides something hides it in the layers below only, wherever it stands in its own.
        for path, is_folder in added:
            if not is_folder:
                self._remove(path)
            self._there.update(one for one in (path, *parents(path)) if one in self._asked)

    def _matters(self, path: str) -> bool:
        known = self._asked
        return path in known or path in self._above or any(one in known for one in parents(path))

    def _remove(self, path: str, *, itself: bool = True) -> None:
        if not self._there or not (path in self._above or path in self._asked):
            return
        inside = f"{path}/" if path else ""
        gone = {one for one in self._there if one.startswith(inside) and one != path}
        self._there -= gone | ({path} if itself else set())


def parents(path: str) -> Iterator[str]:
    """The folders that it lies in, up to the root, which is empty."""
    while path:
        path = posixpath.dirname(path)
        yield path
