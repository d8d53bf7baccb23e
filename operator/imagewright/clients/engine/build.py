"""A build as an engine takes it: query, headers, and what its stream comes to.

An engine takes much nonsense in silence: a number that is none counts as 0, an option that the
chosen builder does not know is left out, an unknown session is waited for. Whatever it would take
like that is refused here, and the rest is left to the engine, which says it better.
"""

import ipaddress
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from imagewright.clients.engine.auth import FOR_BUILD, Login, build_header
from imagewright.clients.engine.errors import NoResult, Unsupported
from imagewright.clients.engine.stream import IMAGE_ID, Aux, Message, Output

CLASSIC, BUILDKIT = 1, 2
NUMBERS = frozenset({"memory", "memswap", "cpushares", "cpuperiod", "cpuquota"})
SETS = frozenset({"cpusetcpus", "cpusetmems"})
UNLIMITED = -1
"""Of `memswap`: any amount of swap. Of an ulimit: no limit."""
SANDBOXED_BUILDKIT = (1, 42)
"""The API whose engines (23.0) give shared memory and ulimits to BuildKit, too."""

_SET = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")

Ulimit = tuple[str, int, int]
"""Name, soft and hard limit."""


@dataclass(frozen=True, slots=True)
class Build:
    """One build request. Sizes in bytes; what is empty or 0 is left to the engine.

    Raises ValueError for what the engine would overlook. `limits` go by the names in NUMBERS and
    SETS. `registries` go by host, and only the classic builder reads them; `build_id` is what
    `cancel` takes, and only BuildKit has it. The build arguments may be secrets, so no repr shows
    them. Containers of steps are always removed, also those of failed ones.
    """

    version: int = CLASSIC
    dockerfile: str = "Dockerfile"
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    pull: bool = False
    squash: bool = False
    platform: str = ""
    network: str = ""
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    limits: Mapping[str, int | str] = field(default_factory=dict)
    cache_from: tuple[str, ...] = ()
    remote: str = field(default="", repr=False)
    outputs: tuple[tuple[str, Mapping[str, str]], ...] = ()
    build_id: str = ""
    session: str = ""
    registries: Mapping[str, Login] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for wrong in _wrong(self):
            raise ValueError(wrong)

    @property
    def gives_image(self) -> bool:
        """Whether there is an image at the end: not where it is exported elsewhere."""
        return all(kind in {"moby", "image"} for kind, _ in self.outputs)

    def check(self, api: tuple[int, int]) -> None:
        """Raise Unsupported where an engine with this API would leave an option out."""
        if (
            self.version == BUILDKIT
            and api < SANDBOXED_BUILDKIT
            and (self.shm_size or self.ulimits)
        ):
            raise Unsupported(
                "shared memory and ulimits reach a BuildKit build from API 1.42 on (Docker 23.0), "
                f"and this engine speaks {api[0]}.{api[1]}"
            )

    def query(self) -> list[tuple[str, str]]:
        """The parameters of the request."""
        texts = {
            "version": str(self.version),
            "dockerfile": self.dockerfile,
            "target": self.target,
            "platform": self.platform,
            "networkmode": self.network,
            "remote": self.remote,
            "buildid": self.build_id,
            "session": self.session,
            "shmsize": str(self.shm_size or ""),
            "nocache": _flag(self.no_cache),
            "pull": _flag(self.pull),
            "squash": _flag(self.squash),
            **{name: str(value) for name, value in self.limits.items()},
            **self._documents(),
        }
        return [
            *((name, text) for name, text in texts.items() if text),
            *(("t", tag) for tag in self.tags),
            *(("extrahosts", f"{host}:{ip}") for host, ip in self.extra_hosts),
            ("rm", "1"),
            ("forcerm", "1"),
        ]

    def headers(self) -> dict[str, str]:
        """The headers of the request. A body under any other type would be read as a form."""
        headers = {"Content-Type": "application/x-tar"}
        if self.registries:
            headers[FOR_BUILD] = build_header(self.registries)
        return headers

    def _documents(self) -> dict[str, str]:
        """The parameters that are JSON."""
        values: dict[str, Any] = {
            "buildargs": dict(self.build_args),
            "labels": dict(self.labels),
            "cachefrom": self.cache_from,
            "ulimits": [{"Name": n, "Soft": soft, "Hard": hard} for n, soft, hard in self.ulimits],
            "outputs": [{"Type": kind, "Attrs": dict(attrs)} for kind, attrs in self.outputs],
        }
        return {name: json.dumps(value) for name, value in values.items() if value}


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a build. `image_id` is empty only where no image was asked for.

    On a graph driver it is the digest of the image's configuration, on a containerd store that of
    its manifest or index.
    """

    image_id: str


async def drain(
    build: Build,
    stream: AsyncIterator[Message],
    heard: Callable[[str], None] | None = None,
) -> Result:
    """Follow a build to its end; `heard` gets what is printed on the way.

    Raises what the stream raises, and NoResult where it ends without an image: then it is unknown
    whether there is one.
    """
    image_id = ""
    async for message in stream:
        if heard is not None and isinstance(message, Output):
            heard(message.text)
        # One comes for each stage, and with squash one more: the last is the image.
        if isinstance(message, Aux) and (build.version == CLASSIC or message.id == IMAGE_ID):
            image_id = str(message.value.get("ID") or image_id)
    if not image_id and build.gives_image:
        raise NoResult("The engine ended the build with neither an image nor an error.")
    return Result(image_id)


def _flag(value: bool) -> str:  # noqa: FBT001  # it spells a truth
    return "1" if value else ""


def _wrong(build: Build) -> Iterator[str]:
    """What the engine would take in silence, as sentences."""
    if build.version not in {CLASSIC, BUILDKIT}:
        yield f"There is no builder {build.version}: 1 is the classic one, 2 is BuildKit."
    if not build.dockerfile:
        yield "A build needs the path of its Dockerfile."
    if not all(build.tags) or not all(build.cache_from):
        yield "A tag or a cache without a name means nothing."
    if "," in build.platform:
        yield f"An engine builds for one platform at a time, not for {build.platform}."
    if len(build.outputs) > 1:
        yield "An engine takes one output."
    yield from _overlooked(build)
    yield from _odd_limits(build)
    yield from _odd_hosts(build)


def _overlooked(build: Build) -> Iterator[str]:
    """Options that the chosen builder does not read."""
    classic = build.version == CLASSIC
    unread = (
        {"outputs": build.outputs, "session": build.session, "build_id": build.build_id}
        if classic
        else {"limits": build.limits, "registries": build.registries}
    )
    for name, value in unread.items():
        if value:
            yield f"{'The classic builder' if classic else 'BuildKit'} overlooks {name}."


def _odd_limits(build: Build) -> Iterator[str]:
    for name, value in build.limits.items():
        if name in NUMBERS:
            least = UNLIMITED if name == "memswap" else 0
            good = type(value) is int and value >= least
        else:
            good = name in SETS and isinstance(value, str) and bool(_SET.fullmatch(value))
        if not good:
            yield f"An engine would overlook the limit {name}={value!r}."
    if build.shm_size < 0:
        yield f"Shared memory cannot have a size of {build.shm_size} bytes."
    for name, soft, hard in build.ulimits:
        if not name.isalpha() or min(soft, hard) < UNLIMITED:
            yield f"There is no ulimit {name}={soft}:{hard}."


def _odd_hosts(build: Build) -> Iterator[str]:
    for host, ip in build.extra_hosts:
        # The classic builder looks at them only once it has to run something.
        if not host or ":" in host or not (ip == "host-gateway" or _is_ip(ip)):
            yield f"{host}:{ip} is no extra host: give a name and an IP address."


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
