"""The workers inside of a daemon: what each can run, and which BuildKit it is of."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from imagewright.clients.buildkit.proto import control_pb2, ops_pb2

VERSION = re.compile(r"v?(\d+)\.(\d+)")
SPACE_LIMITS = (0, 17)
"""The first BuildKit that knows `maxUsedSpace` and `minFreeSpace` (its control.proto)."""
DESCRIPTIONS = (0, 14)
"""The first that looks at descriptions when it prunes (its cache/manager.go, pruneOnce): before,
a filter by them finds no record, though DiskUsage reads the same one well."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker. `platforms` are written `linux/arm64` or `linux/arm/v7`.

    `version` is empty where the daemon does not say it (before v0.11). `space_limits` says that
    its own rules for collecting garbage have bounds that only v0.17 and later know: a proof where
    there is one, while its absence proves nothing.
    """

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    version: str = ""
    space_limits: bool = False


def worker_of(message: control_pb2.WorkerRecord) -> WorkerInfo:
    """A worker as a value that outlives its message."""
    return WorkerInfo(
        id=message.ID,
        labels=dict(message.Labels),
        platforms=tuple(map(_platform, message.platforms)),
        version=message.buildkitVersion.version,
        space_limits=any(one.maxUsedSpace or one.minFreeSpace for one in message.gcPolicy),
    )


def is_since(version: str, oldest: tuple[int, int]) -> bool:
    """Whether a BuildKit of that version is `oldest` or later.

    Versions that say nothing, as those of distributions (`v0.0.0+unknown`), are taken for old.
    """
    found = VERSION.match(version)
    return found is not None and (int(found[1]), int(found[2])) >= oldest


def _platform(message: ops_pb2.Platform) -> str:
    parts = (message.OS, message.Architecture, message.Variant)
    return "/".join(part for part in parts if part)
