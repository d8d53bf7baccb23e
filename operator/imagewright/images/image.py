"""One image of one platform, taken apart: its manifest and configuration (image-spec v1.1)."""

import json
from dataclasses import dataclass
from typing import Any

from imagewright.api.reason import Reason
from imagewright.clients.registry.registry import IMAGES, INDEXES, Manifest, digest_of
from imagewright.images.layer import Packed
from imagewright.ports import Failed, Rejected

OCI, DOCKER = IMAGES
LAYER = {
    OCI: "application/vnd.oci.image.layer.v1.tar+gzip",
    DOCKER: "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest of layers, its media type, and the configuration that it names."""

    manifest: dict[str, Any]
    media_type: str
    config: dict[str, Any]

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The descriptors of its layers, from the lowest up."""
        found: list[dict[str, Any]] = self.manifest["layers"]
        return found

    @property
    def diff_ids(self) -> list[str]:
        """The digests of what is in them, unpacked, in the same order."""
        found: list[str] = self.config["rootfs"]["diff_ids"]
        return found

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Digest and uncompressed digest of every layer, from the lowest up."""
        digests = [str(layer["digest"]) for layer in self.layers]
        return list(zip(digests, self.diff_ids, strict=True))

    def check_base(self, base: tuple[str, ...]) -> None:
        """Raises Failed where those are not the uncompressed digests of its lowest layers."""
        if tuple(self.diff_ids[: len(base)]) != base:
            raise squash_failed("its lowest layers are not those of its base image")

    def squashed(self, base: int, layer: Packed, words: dict[str, str]) -> "Image":
        """The image of its base's layers (so many) and the merged one; history, settings stay."""
        descriptor = {
            "mediaType": LAYER[self.media_type],
            "digest": layer.digest,
            "size": layer.size,
        }
        rootfs = {"type": "layers", "diff_ids": [*self.diff_ids[:base], layer.diff_id]}
        history = [*hollowed(self.config.get("history") or [], base), words]
        config = {
            **self.config,
            "created": words["created"],
            "rootfs": rootfs,
            "history": history,
        }
        manifest = {**self.manifest, "layers": [*self.layers[:base], descriptor]}
        return Image(manifest, self.media_type, config)

    def packed(self) -> tuple[bytes, Manifest]:
        """The configuration and the manifest that names it, as a registry takes them."""
        config = json.dumps(self.config).encode()
        descriptor = {
            "mediaType": self.manifest["config"]["mediaType"],
            "digest": digest_of(config),
            "size": len(config),
        }
        content = json.dumps({**self.manifest, "config": descriptor}).encode()
        return config, Manifest(digest_of(content), self.media_type, content)


def config_digest(manifest: Manifest) -> str:
    """The digest of the configuration. Raises Rejected for what is not one image, Failed."""
    if manifest.media_type in INDEXES:
        raise Rejected(
            "spec.squash: the build made an index, and only a single image can be squashed: name "
            "one platform in spec.platforms, and leave spec.attestations out.",
            Reason.FEATURE_UNSUPPORTED,
        )
    try:
        return str(json.loads(manifest.content)["config"]["digest"])
    except (ValueError, KeyError, TypeError):
        raise squash_failed("its manifest cannot be read") from None


def image_of(manifest: Manifest, config: bytes) -> Image:
    """The image of that manifest and configuration. Raises Failed where they do not fit."""
    try:
        image = Image(json.loads(manifest.content), manifest.media_type, json.loads(config))
        _check(image)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise squash_failed("its manifest and its configuration do not fit") from None
    return image


def _check(image: Image) -> None:
    """Touch all that is used later, so that what is missing is found here."""
    digests = [layer["digest"] for layer in image.layers]
    if not image.manifest["config"]["mediaType"] or len(digests) != len(image.diff_ids):
        raise ValueError(digests)
    hollowed(image.config.get("history") or [], 0)


def hollowed(history: list[dict[str, Any]], base: int) -> list[dict[str, Any]]:
    """The history, in which what lies above the base has no layer of its own any more."""
    kept, layers = [], 0
    for entry in history:
        layers += not entry.get("empty_layer", False)
        kept.append(entry if layers <= base else {**entry, "empty_layer": True})
    return kept


def squash_failed(why: str) -> Failed:
    """The error of an image that cannot be squashed, in the engine's own words."""
    return Failed(f"error squashing image: {why}.", Reason.SQUASH_FAILED)
