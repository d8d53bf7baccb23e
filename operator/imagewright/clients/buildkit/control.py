"""BuildKit's Control service over one channel: build, follow, ask.

A build lives only as long as the call that asked for it: cancelling the task that awaits `solve()`
cancels the call, and the daemon stops the build. There is no other way to stop one.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import grpc

from imagewright.clients.buildkit.channel import Tls, open_channel
from imagewright.clients.buildkit.definition import GitSource, git_op
from imagewright.clients.buildkit.errors import Unsupported, translate
from imagewright.clients.buildkit.proto import control_pb2, gateway_pb2, ops_pb2, policy_pb2
from imagewright.clients.buildkit.status import Event, event_of

CONTROL = "/moby.buildkit.v1.Control/"
BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"
BUILD_ID = "buildkit-controlapi-buildid"
"""Metadata key that ties a gateway call to the Solve it belongs to."""


@dataclass(frozen=True, slots=True)
class Export:
    """Where a result goes: an exporter's type (`image`) and its attributes."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Solve:
    """A request to build.

    `inputs` are contexts as LLB by name; `checksums` maps the URL of an http source to the sha256
    (hex) that the daemon must find there; `internal` keeps the build out of the daemon's history.
    """

    ref: str
    frontend: str = "dockerfile.v0"
    attrs: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, ops_pb2.Definition] = field(default_factory=dict)
    exports: Sequence[Export] = ()
    checksums: Mapping[str, str] = field(default_factory=dict)
    session: str = ""
    internal: bool = False


@dataclass(frozen=True, slots=True)
class GitRevision:
    """What a name in a git repository stands for now."""

    ref: str
    commit: str


class Control:
    """One daemon. Every failed call raises a BuildKitError, with the gRPC error as its cause."""

    def __init__(self, address: str, tls: Tls | None = None) -> None:
        self.address = address
        self._channel = open_channel(address, tls)
        self._solve = self._channel.unary_unary(
            CONTROL + "Solve",
            control_pb2.SolveRequest.SerializeToString,
            control_pb2.SolveResponse.FromString,
        )
        self._status = self._channel.unary_stream(
            CONTROL + "Status",
            control_pb2.StatusRequest.SerializeToString,
            control_pb2.StatusResponse.FromString,
        )
        self._session: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = (
            self._channel.stream_stream(CONTROL + "Session")
        )
        self._info = self._channel.unary_unary(
            CONTROL + "Info",
            control_pb2.InfoRequest.SerializeToString,
            control_pb2.InfoResponse.FromString,
        )
        self._resolve = self._channel.unary_unary(
            BRIDGE + "ResolveSourceMeta",
            gateway_pb2.ResolveSourceMetaRequest.SerializeToString,
            gateway_pb2.ResolveSourceMetaResponse.FromString,
        )
        self._return = self._channel.unary_unary(
            BRIDGE + "Return",
            gateway_pb2.ReturnRequest.SerializeToString,
            gateway_pb2.ReturnResponse.FromString,
        )

    async def close(self) -> None:
        """End the channel and every call on it."""
        await self._channel.close()

    async def solve(self, request: Solve) -> dict[str, str]:
        """Build, and return what the exporters said (`containerimage.digest`, ...).

        Raises SolveError where the build failed, Unreachable where the daemon did.
        """
        try:
            answer = await self._solve(_message(request))
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        return dict(answer.ExporterResponse)

    async def follow(self, ref: str) -> AsyncIterator[Event]:
        """The events of a build, from its first to its last. May be called before `solve()`.

        The daemon waits about 6 s for a build of that name before it gives up.
        """
        try:
            async for message in self._status(control_pb2.StatusRequest(Ref=ref)):
                yield event_of(message)
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error

    async def info(self, timeout_seconds: float = 5) -> str:
        """The daemon's version, such as `v0.32.2`; empty where it cannot say (before v0.11)."""
        try:
            answer = await self._info(control_pb2.InfoRequest(), timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            meaning = translate(error)
            if isinstance(meaning, Unsupported):
                return ""
            raise meaning from error
        return answer.buildkitVersion.version

    def open_session(
        self, metadata: Sequence[tuple[str, str]]
    ) -> "grpc.aio.StreamStreamCall[bytes, bytes]":
        """The raw stream of a session: serialized BytesMessages both ways."""
        return self._session(metadata=tuple(metadata))

    async def resolve_git(self, source: GitSource) -> GitRevision:
        """What `source.ref` (empty: the default branch) stands for, as the daemon sees it.

        The daemon itself asks the repository, over the network and with the git that will fetch
        it. Raises SolveError where the repository or the name does not exist.
        """
        ref = secrets.token_hex(12)
        # A gateway call needs a build to belong to: one without a frontend waits for us to answer.
        frame = asyncio.create_task(self.solve(Solve(ref=ref, frontend="", internal=True)))
        try:
            request = gateway_pb2.ResolveSourceMetaRequest(
                Source=git_op(source), LogName=f"[internal] resolve {source.url}"
            )
            answer = await self._resolve(request, metadata=((BUILD_ID, ref),))
            # The empty result must be there: v0.32.2 ends itself with a nil pointer without one.
            done = gateway_pb2.ReturnRequest(result=gateway_pb2.Result())
            await self._return(done, metadata=((BUILD_ID, ref),))
            await frame
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        finally:
            frame.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await frame
        found = answer.Git
        return GitRevision(ref=found.Ref, commit=found.CommitChecksum or found.Checksum)


def _message(request: Solve) -> control_pb2.SolveRequest:
    message = control_pb2.SolveRequest(
        Ref=request.ref,
        Session=request.session,
        Frontend=request.frontend,
        FrontendAttrs=dict(request.attrs),
        Internal=request.internal,
    )
    for name, definition in request.inputs.items():
        message.FrontendInputs[name].CopyFrom(definition)
    for export in request.exports:
        message.Exporters.add(Type=export.type, Attrs=dict(export.attrs))
    if request.exports:
        # Daemons before v0.13 know one exporter, in fields of its own; unknown fields are ignored.
        message.ExporterDeprecated = request.exports[0].type
        message.ExporterAttrsDeprecated.update(request.exports[0].attrs)
    for url, sha256 in request.checksums.items():
        message.SourcePolicy.version = 1
        message.SourcePolicy.rules.append(_checksum_rule(url, sha256))
    return message


def _checksum_rule(url: str, sha256: str) -> policy_pb2.Rule:
    """Makes the daemon check a download that its own frontend asks for without a checksum."""
    return policy_pb2.Rule(
        action=policy_pb2.CONVERT,
        selector=policy_pb2.Selector(identifier=url, match_type=policy_pb2.EXACT),
        updates=policy_pb2.Update(attrs={"http.checksum": f"sha256:{sha256}"}),
    )
