"""A request to build, and the message that carries it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imagewright.clients.buildkit.proto import control_pb2, ops_pb2, policy_pb2

CACHE_IMPORTS = "cache-imports"
"""The attribute in which the Dockerfile frontend looks for caches; it sees nothing else."""


@dataclass(frozen=True, slots=True)
class Export:
    """Where a result goes: an exporter's type (`image`) and its attributes."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache outside of the daemon: its type (`registry`, `inline`) and its attributes.

    Attributes of some types hold credentials, so they are not shown.
    """

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Solve:
    """A request to build.

    `inputs` are contexts as LLB by name; `checksums` maps the URL of an http source to the sha256
    (hex) that the daemon must find there; `internal` keeps the build out of the daemon's history.
    `entitlements` (`network.host`, `security.insecure`) are what the daemon must allow as well.
    """

    ref: str
    frontend: str = "dockerfile.v0"
    attrs: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, ops_pb2.Definition] = field(default_factory=dict)
    exports: Sequence[Export] = ()
    checksums: Mapping[str, str] = field(default_factory=dict)
    session: str = ""
    internal: bool = False
    entitlements: Sequence[str] = ()
    cache_imports: Sequence[Cache] = ()
    cache_exports: Sequence[Cache] = ()


def message_of(request: Solve) -> control_pb2.SolveRequest:
    """The request as daemons of all versions read it."""
    message = control_pb2.SolveRequest(
        Ref=request.ref,
        Session=request.session,
        Frontend=request.frontend,
        FrontendAttrs=frontend_attrs(request),
        Internal=request.internal,
        Entitlements=request.entitlements,
    )
    for name, definition in request.inputs.items():
        message.FrontendInputs[name].CopyFrom(definition)
    for export in request.exports:
        message.Exporters.add(Type=export.type, Attrs=dict(export.attrs))
    if request.exports:
        # Daemons before v0.13 know one exporter, in fields of its own; unknown fields are ignored.
        message.ExporterDeprecated = request.exports[0].type
        message.ExporterAttrsDeprecated.update(request.exports[0].attrs)
    for cache in request.cache_imports:
        message.Cache.Imports.add(Type=cache.type, Attrs=dict(cache.attrs))
    for cache in request.cache_exports:
        message.Cache.Exports.add(Type=cache.type, Attrs=dict(cache.attrs))
    if request.checksums:
        message.SourcePolicy.CopyFrom(policy_of(request.checksums))
    return message


def frontend_attrs(request: Solve) -> dict[str, str]:
    """The frontend's attributes, with the caches that it is to read.

    The keys of the JSON are those of Go's struct (BuildKit's frontend/dockerui, `cache-imports`).
    """
    attrs = dict(request.attrs)
    if request.cache_imports:
        entries = [{"Type": one.type, "Attrs": dict(one.attrs)} for one in request.cache_imports]
        attrs[CACHE_IMPORTS] = json.dumps(entries)
    return attrs


def policy_of(checksums: Mapping[str, str]) -> policy_pb2.Policy:
    """Makes the daemon check downloads that its own frontend asks for without a checksum."""
    rules = [
        policy_pb2.Rule(
            action=policy_pb2.CONVERT,
            selector=policy_pb2.Selector(identifier=url, match_type=policy_pb2.EXACT),
            updates=policy_pb2.Update(attrs={"http.checksum": f"sha256:{sha256}"}),
        )
        for url, sha256 in checksums.items()
    ]
    return policy_pb2.Policy(version=1, rules=rules)
