"""The Plan: all that a builder is told. It refers to nothing in the cluster."""

import hashlib
import json
from dataclasses import dataclass, field, replace

from imagewright.api.imagebuild import ImageBuildSpec
from imagewright.domain.reference import Reference

OPERATIONAL = frozenset({"cancel", "suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished"})
"""Fields that decide when and whether, not what: a change of them starts no new run."""


@dataclass(frozen=True, slots=True)
class Inline:
    """Files by relative path."""

    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Git:
    """A repository at `revision` (empty: the default branch); `commit` once it is resolved.

    `secret` names what opens it: a username and password, a token, or a private key for ssh.
    """

    url: str
    revision: str = ""
    submodules: bool = False
    ref: str = ""
    commit: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Http:
    """A download; `sha256` in hex, empty where anything is taken. `secret` names what opens it."""

    url: str
    sha256: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Oci:
    """An image or artifact whose files are the context; `digest` once it is resolved."""

    image: str
    digest: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """A ConfigMap whose entries are the context's files."""

    name: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A folder on this machine."""

    path: str


Source = Inline | Git | Http | Oci | Config | Directory


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build, how, and under which names to push it."""

    source: Source
    context_dir: str = ""
    dockerfile: str = "Dockerfile"
    dockerfile_inline: str = ""
    target: str = ""
    build_args: dict[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    pull: bool = False
    no_cache: bool = False
    network: str = "default"

    def at(self, revision: str) -> "Plan":
        """The plan of a retry: a git source at the commit that the first attempt resolved."""
        if not isinstance(self.source, Git) or not revision:
            return self
        return replace(self, source=replace(self.source, ref=revision, commit=revision))


@dataclass(frozen=True, slots=True)
class Order:
    """A plan as a builder gets it: `ref` names the run, `names` are parsed and each there once."""

    ref: str
    plan: Plan
    names: tuple[Reference, ...] = ()


def make_plan(spec: ImageBuildSpec) -> Plan:
    """The plan that a spec asks for."""
    return Plan(
        source=_source(spec),
        context_dir=spec.context_dir.strip("/"),
        dockerfile=spec.dockerfile,
        dockerfile_inline=spec.dockerfile_inline or "",
        target=spec.target,
        build_args={arg.name: arg.value for arg in spec.build_args},
        images=tuple(spec.images),
        labels=spec.labels,
        annotations=spec.annotations,
        platforms=tuple(spec.platforms),
        pull=spec.pull,
        no_cache=spec.cache.no_cache,
        network=spec.network,
    )


def inputs_digest(spec: ImageBuildSpec) -> str:
    """A digest over the fields that decide the image: equal inputs, equal digest."""
    fields = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
    inputs = {name: value for name, value in fields.items() if name not in OPERATIONAL}
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _source(spec: ImageBuildSpec) -> Source:
    source = spec.source
    if source.inline is not None:
        return Inline(source.inline.files)
    if source.git is not None:
        git = source.git
        return Git(git.url, git.revision or "", git.submodules)
    if source.http is not None:
        return Http(source.http.url, source.http.sha256 or "")
    raise ValueError("A spec has exactly one source; the model holds to it.")
