"""An image as an engine has it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Image:
    """What an engine knows of one image. Size in bytes.

    On a graph driver `id` is the digest of the configuration, and `repo_digests` come with a push
    or a pull. On a containerd store `id` is the digest of the manifest or index, and
    `repo_digests` are there from the beginning: they prove no push.
    """

    id: str
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    """Digests of the layers' uncompressed archives, the lowest first."""
    size: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    """In RFC 3339, as the engine wrote it."""
    parent: str = ""
    """The image of the step before; the classic builder's only."""
    architecture: str = ""
    os: str = ""


def read_image(found: Mapping[str, Any]) -> Image:
    """The answer to GET /images/{name}/json."""
    config, rootfs = found.get("Config") or {}, found.get("RootFS") or {}
    return Image(
        id=str(found.get("Id") or ""),
        repo_tags=tuple(found.get("RepoTags") or ()),
        repo_digests=tuple(found.get("RepoDigests") or ()),
        layers=tuple(rootfs.get("Layers") or ()),
        size=int(found.get("Size") or 0),
        labels=dict(config.get("Labels") or {}),
        created=str(found.get("Created") or ""),
        parent=str(found.get("Parent") or ""),
        architecture=str(found.get("Architecture") or ""),
        os=str(found.get("Os") or ""),
    )
