"""Images taken from one repository to another, in one registry or between two."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from imagewright.clients.registry.errors import Corrupt
from imagewright.clients.registry.registry import INDEXES, Manifest, Registry

FOREIGN = "nondistributable", "foreign"
"""What the media type of a layer says that its maker alone may give away."""


@dataclass(frozen=True, slots=True)
class Place:
    """A repository of a registry."""

    registry: Registry
    repository: str

    def is_same(self, other: "Place") -> bool:
        """Whether what is in one is in the other."""
        return (self.registry.host, self.repository) == (other.registry.host, other.repository)


async def copy(manifest: Manifest, source: Place, target: Place) -> None:
    """Bring to `target` all that the manifest needs; the manifest itself is not put there.

    What is there is left alone, and within a registry no bytes are moved. Raises a RegistryError.
    """
    if source.is_same(target):
        return
    if manifest.media_type in INDEXES:
        for digest in _listed(manifest, "manifests"):
            part = await source.registry.manifest(source.repository, digest)
            await copy(part, source, target)
            await target.registry.put_manifest(target.repository, digest, part)
        return
    for digest in [*_listed(manifest, "layers"), *_listed(manifest, "config")]:
        await _copy_blob(digest, source, target)


async def _copy_blob(digest: str, source: Place, target: Place) -> None:
    registry, repository = target.registry, target.repository
    if await registry.has_blob(repository, digest):
        return
    near = source.registry.host == registry.host
    if near and await registry.mount(repository, digest, source.repository):
        return
    pieces = source.registry.blob(source.repository, digest)
    await registry.upload(repository, digest, pieces)


def _listed(manifest: Manifest, kind: str) -> Iterator[str]:
    """The digests that a manifest names, each once. Raises Corrupt where there are none."""
    try:
        found = json.loads(manifest.content)[kind]
        parts = found if isinstance(found, list) else [found]
        digests = dict.fromkeys(str(part["digest"]) for part in parts if not _is_foreign(part))
    except (ValueError, KeyError, TypeError):
        raise Corrupt(f"the manifest {manifest.digest} cannot be read") from None
    return iter(digests)


def _is_foreign(part: dict[str, Any]) -> bool:
    return any(word in str(part.get("mediaType")) for word in FOREIGN)
