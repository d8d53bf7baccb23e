"""The layers above an image's base, fetched and merged into one."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import IO

from imagewright.images.copying import Place
from imagewright.images.flatten import Tree, tree_of
from imagewright.images.image import Image
from imagewright.images.layer import Limits, Packed, Unpacking, packed
from imagewright.images.presence import Presence
from imagewright.images.scratch import Scratch
from imagewright.images.tar import BadLayer, entries_of

NOTHING = (
    "there is nothing to squash, because no step changes a file of the base image. Build it "
    "without spec.squash"
)


@dataclass(slots=True)
class Merging:
    """One merge: where the layers are, where they are put meanwhile, and what is too much."""

    place: Place
    scratch: Scratch
    limits: Limits
    unpacked: int = 0

    async def merged(self, image: Image, base: int) -> tuple[Packed, IO[bytes]]:
        """The layers above so many of the base as one, and the file that holds it.

        Raises BadLayer, a RegistryError, or OSError of the disk.
        """
        layers = [await self._layer(*part) for part in image.parts[base:]]
        tree = await asyncio.to_thread(tree_of, layers, self.limits.entries)
        await self._settle(tree, image.parts[:base])
        if await asyncio.to_thread(lambda: tree.empty):
            raise BadLayer(NOTHING)
        file = await self.scratch.file()
        return await asyncio.to_thread(packed, tree, layers, file, self.scratch.stop), file

    async def _settle(self, tree: Tree, base: Sequence[tuple[str, str]]) -> None:
        """Hide only what the base has, which is looked at where something is hidden at all."""
        asked = await asyncio.to_thread(tree.asked)
        if not asked:
            return
        presence = Presence(asked)
        for digest, diff_id in base:
            file = await self._layer(digest, diff_id)
            await asyncio.to_thread(_apply, presence, file)
            await self.scratch.drop(file)
        await asyncio.to_thread(tree.settle, presence)

    async def _layer(self, digest: str, diff_id: str) -> IO[bytes]:
        """A layer, unpacked while it comes, and what the configuration says that it is."""
        file = await self.scratch.file()
        unpacking = Unpacking(file, self.limits.unpacked - self.unpacked)
        blob = self.place.registry.blob(self.place.repository, digest)
        async with aclosing(blob) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(unpacking.feed, piece)
        await asyncio.to_thread(unpacking.finish, diff_id)
        self.unpacked += unpacking.size
        return file


def _apply(presence: Presence, file: IO[bytes]) -> None:
    presence.apply(entries_of(file))
