"""Which API an engine speaks, and what kind of engine it is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imagewright.clients.engine.errors import EngineError, Unsupported

Api = tuple[int, int]

NEWEST: Api = (1, 56)
"""What is known here; to a newer engine this one is spoken."""
OLDEST: Api = (1, 40)
"""Docker 19.03."""
NATIVE_GRPC: Api = (1, 53)
"""Docker 29.2."""
CONTAINERD_STORE = ("driver-type", "io.containerd.snapshotter.v1")

_API = re.compile(r"(\d{1,4})\.(\d{1,4})")


@dataclass(frozen=True, slots=True)
class Version:
    """What an engine says of itself before anything is agreed on.

    `api` is the newest that both sides know. `builder` is the engine's advice to people's clients,
    1 or 2, and 0 where it gives none (before 23.0).
    """

    api: Api
    experimental: bool = False
    builder: int = 0

    @property
    def prefix(self) -> str:
        """What a path under this version begins with."""
        return f"/v{self.api[0]}.{self.api[1]}"


@dataclass(frozen=True, slots=True)
class Info:
    """What kind of engine it is."""

    id: str
    name: str
    server_version: str
    containerd_store: bool
    """Whether images are in containerd's store rather than a graph driver's."""
    experimental: bool
    """Whether it can squash."""
    driver: str = ""
    architecture: str = ""
    cpus: int = 0
    memory: int = 0
    """Bytes."""
    labels: tuple[str, ...] = field(default=())


def negotiate(headers: Mapping[str, str]) -> Version:
    """The version agreed on, from the answer to a ping. Raises Unsupported, EngineError."""
    found = _API.fullmatch(headers.get("Api-Version", ""))
    if found is None:
        raise EngineError("What answers there is no engine: it names no version of the API.")
    theirs = (int(found[1]), int(found[2]))
    if theirs < OLDEST:
        raise Unsupported(
            f"it speaks API {theirs[0]}.{theirs[1]}, and the least is 1.40 (Docker 19.03)"
        )
    builder = headers.get("Builder-Version", "")
    return Version(
        api=min(theirs, NEWEST),
        experimental=headers.get("Docker-Experimental", "").lower() == "true",
        builder=int(builder) if builder in {"1", "2"} else 0,
    )


def native_grpc(version: Version) -> bool:
    """Whether BuildKit's gRPC is spoken on the engine's socket itself, without an upgrade."""
    return version.api >= NATIVE_GRPC


def read_info(found: Mapping[str, Any]) -> Info:
    """The answer to GET /info."""
    status = {tuple(pair) for pair in found.get("DriverStatus") or ()}
    return Info(
        id=str(found.get("ID") or ""),
        name=str(found.get("Name") or ""),
        server_version=str(found.get("ServerVersion") or ""),
        containerd_store=CONTAINERD_STORE in status,
        experimental=bool(found.get("ExperimentalBuild")),
        driver=str(found.get("Driver") or ""),
        architecture=str(found.get("Architecture") or ""),
        cpus=int(found.get("NCPU") or 0),
        memory=int(found.get("MemTotal") or 0),
        labels=tuple(found.get("Labels") or ()),
    )
