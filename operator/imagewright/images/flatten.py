"""Several layers of an image merged into one, which does to a base what all of them did.

Layers are applied, from the lowest up, to a tree of names in memory: only names, what hides what,
and where in which layer something stands, never content. Then what is left is copied in the order
of the tree, byte by byte as the layers have it. The rules are those of the image specification
(layer.md): `.wh.x` hides x in the layers below, `.wh..wh..opq` all that a folder held there; a
file replaces a folder with all that is in it.
"""

import posixpath
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from imagewright.images.header import linked, marker, renamed
from imagewright.images.tar import (
    HIDDEN,
    LINK,
    OPAQUE,
    BadLayer,
    Entry,
    Reader,
    clean,
    entries_of,
    padded,
)

MOST_ENTRIES = 1_000_000
"""More than any image has: some 300 bytes of memory each."""
CHUNK = 1 << 20
OFFSET_BITS = 48

Origin = int
"""Where an entry stands: in which layer, and how many bytes into its tar, in one number."""


@dataclass(frozen=True, slots=True)
class Link:
    """Another name of a file of the base image, and the entry that says so."""

    target: str
    entry: Origin


@dataclass(slots=True)
class Node:
    """A name. `folder` is its entry where it is a folder, `origin` where it is anything else.

    `hides` is what it says of the base: `gone`, `opaque` (a folder, empty), or nothing.
    """

    origin: Origin | Link | None = None
    folder: Origin | None = None
    hides: str = ""
    below: "dict[str, Node] | None" = None


class Tree:
    """What the layers so far did to the base. `most` is how many entries and names it may have."""

    def __init__(self, most: int = MOST_ENTRIES) -> None:
        self.root = Node()
        self.shared: set[Origin] = set()
        self._most, self._entries, self._names = most, 0, 0

    @property
    def empty(self) -> bool:
        """Whether the layers did nothing to the base."""
        nodes = (node for _, node in walk(self.root))
        return not any(
            node.hides or node.origin is not None or node.folder is not None for node in nodes
        )

    def apply(self, number: int, entries: Iterator[Entry]) -> None:
        """Put the next layer on top. Raises BadLayer for a name that leads out of it."""
        plain: list[tuple[str, Origin, bool, str]] = []
        for entry in entries:
            self._entries += 1
            if self._entries > self._most:
                raise BadLayer(f"the layers have more than {self._most} entries")
            path = clean(entry.name)
            folder, name = posixpath.split(path)
            if not name.startswith(HIDDEN):
                origin = number << OFFSET_BITS | entry.start
                target = entry.target if entry.kind == LINK else ""
                plain.append((path, origin, entry.is_folder, target))
            elif not self._is_gone(folder):
                self._hide(folder, name)
        # What hides something hides it in the layers below only, wherever it stands in its own.
        for path, origin, is_folder, target in plain:
            node = self._reach(path)
            if is_folder:
                self._make_folder(node, origin)
            else:
                node.below, node.folder, node.hides = None, None, ""
                node.origin = self._linked(path, target, origin) if target else origin

    def _hide(self, folder: str, name: str) -> None:
        if name == OPAQUE:
            node = self._reach(folder)
            node.below, node.hides = None, "opaque"
            return
        hidden = name.removeprefix(HIDDEN)
        if hidden in {"", ".", ".."}:
            raise BadLayer(f"a layer hides {hidden!r} in {folder!r}, which is no name")
        node = self._reach(posixpath.join(folder, hidden))
        node.origin, node.folder, node.below, node.hides = None, None, None, "gone"

    def _is_gone(self, folder: str) -> bool:
        """Whether there is no such folder any more, so that nothing can be hidden in it."""
        node = self.find(folder) if folder else None
        return node is not None and (node.hides == "gone" or node.origin is not None)

    def _make_folder(self, node: Node, origin: Origin) -> None:
        if node.hides == "gone" or node.origin is not None:
            # What it was before is no folder of the base any more.
            node.hides = "opaque"
        node.origin, node.folder = None, origin

    def _linked(self, path: str, target: str, entry: Origin) -> Origin | Link:
        node = self.find(clean(target))
        if node is None:
            return Link(clean(target), entry)
        if node.origin is None:
            raise BadLayer(f"{path} is a link to {target}, which is no file there")
        if isinstance(node.origin, int):
            self.shared.add(node.origin)
        return node.origin

    def asked(self) -> frozenset[str]:
        """The names of the base that the layers hide, or may: there may be none such."""
        return frozenset(path for path, node in walk(self.root) if node.hides)

    def settle(self, base: Container[str]) -> None:
        """Hide nothing that the base has not, or that is hidden by what it lies in."""
        pending = [("", self.root, False)]
        while pending:
            folder, node, covered = pending.pop()
            if node.hides == "opaque" and (covered or folder not in base):
                node.hides = ""
                covered = True
            covered = covered or node.hides == "opaque" or node.origin is not None
            for name, child in list((node.below or {}).items()):
                path = posixpath.join(folder, name)
                if child.hides == "gone" and node.below and (covered or path not in base):
                    del node.below[name]
                elif child.below or child.hides:
                    pending.append((path, child, covered))

    def find(self, path: str) -> Node | None:
        """What the layers did to a name; None where they left the base's own there."""
        node, hidden = self.root, False
        for name in path.split("/"):
            hidden = hidden or bool(node.hides) or node.origin is not None
            child = node.below.get(name) if node.below else None
            if child is None:
                return Node(hides="gone") if hidden else None
            node = child
        return node

    def _reach(self, path: str) -> Node:
        """The node at a path. Something on the way that was no folder, or gone, is one now."""
        node = self.root
        for name in path.split("/") if path else ():
            if node.origin is not None or node.hides == "gone":
                node.origin, node.hides = None, "opaque"
            if node.below is None:
                node.below = {}
            child = node.below.get(name)
            node = child or self._add(node.below, name)
        return node

    def _add(self, below: dict[str, Node], name: str) -> Node:
        self._names += 1
        if self._names > self._most:
            raise BadLayer(f"the layers have more than {self._most} names")
        made = below[name] = Node()
        return made


def tree_of(layers: Sequence[IO[bytes]], most: int = MOST_ENTRIES) -> Tree:
    """What the layers, plain tars from the lowest up, do to a base. Blocks. Raises BadLayer."""
    tree = Tree(most)
    for number, file in enumerate(layers):
        tree.apply(number, entries_of(file))
    return tree


def merge(tree: Tree, layers: Sequence[IO[bytes]], into: IO[bytes]) -> None:
    """Write what the layers came to as one tar. Blocks. Raises BadLayer."""
    writer = _Writer(into, [Reader(file) for file in layers], tree.shared)
    for path, node in walk(tree.root):
        writer.write(path, node)
        if isinstance(node.origin, Link):
            _check(tree, path, node.origin)
    # Two empty blocks are the end.
    into.write(bytes(1024))


def walk(root: Node) -> Iterator[tuple[str, Node]]:
    """Every name with its node: a folder, then what is in it, each in order."""
    yield "", root
    open_folders = [("", root, iter(sorted(root.below or ())))]
    while open_folders:
        folder, above, names = open_folders[-1]
        name = next(names, None)
        if name is None or above.below is None:
            open_folders.pop()
            continue
        path, node = posixpath.join(folder, name), above.below[name]
        yield path, node
        if node.below:
            open_folders.append((path, node, iter(sorted(node.below))))


class _Writer:
    """Writes names into the merged layer, with what they are in the layers that they come from."""

    def __init__(self, out: IO[bytes], readers: Sequence[Reader], shared: set[Origin]) -> None:
        self._out, self._readers, self._shared = out, readers, shared
        self._names: dict[Origin, str] = {}

    def write(self, path: str, node: Node) -> None:
        """One name: what it is, and what it hides of the base."""
        if node.hides == "gone":
            folder, name = posixpath.split(path)
            self._out.write(marker(posixpath.join(folder, HIDDEN + name)))
        elif isinstance(node.origin, Link):
            _, entry = self._entry(node.origin.entry)
            self._out.write(linked(entry, path, node.origin.target))
        elif node.origin is not None:
            self._write_file(path, node.origin)
        elif node.folder is not None:
            self._copy(*self._entry(node.folder))
        if node.hides == "opaque":
            self._out.write(marker(posixpath.join(path, OPAQUE)))

    def _write_file(self, path: str, origin: Origin) -> None:
        """Its content under the first of its names, and links to that under the others."""
        reader, entry = self._entry(origin)
        if origin in self._names:
            self._out.write(linked(entry, path, self._names[origin]))
            return
        if origin in self._shared:
            self._names[origin] = path
        if clean(entry.name) == path:
            self._copy(reader, entry)
        else:
            self._out.write(renamed(entry, path))
            self._pour(reader, entry.at + len(entry.block), entry)

    def _entry(self, origin: Origin) -> tuple[Reader, Entry]:
        reader = self._readers[origin >> OFFSET_BITS]
        entry = reader.entry(origin & ((1 << OFFSET_BITS) - 1))
        if entry is None:
            raise BadLayer("a layer changed while it was read")
        return reader, entry

    def _copy(self, reader: Reader, entry: Entry) -> None:
        self._pour(reader, entry.start, entry)

    def _pour(self, reader: Reader, begin: int, entry: Entry) -> None:
        """The bytes of a layer from there to the entry's end, filled up to whole blocks."""
        reader.file.seek(begin)
        left = entry.end - begin
        while left:
            piece = reader.file.read(min(left, CHUNK))
            if not piece:
                raise BadLayer("a layer changed while it was read")
            self._out.write(piece)
            left -= len(piece)
        size = entry.end - entry.data
        self._out.write(bytes(padded(size) - size))


def _check(tree: Tree, path: str, link: Link) -> None:
    """A file of the base can be linked to only while it is there, and still the same."""
    node = tree.find(link.target)
    if node is not None and (node.hides or node.origin is not None):
        raise BadLayer(
            f"{path} is a link to {link.target} of the base image, which a later step replaced"
        )
