"""BuildKit's gateway API: questions about sources and Dockerfiles, without building anything.

A call of the gateway must belong to a build. So each question opens one that has no frontend and
thus waits for its client to say what the result is; when the answer is there, it is closed with
an empty one.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import grpc

from imagewright.clients.buildkit.definition import GitSource, git_op
from imagewright.clients.buildkit.errors import BuildKitError, Unsupported, translate
from imagewright.clients.buildkit.proto import gateway_pb2
from imagewright.clients.buildkit.request import Solve

BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"
BUILD_ID = "buildkit-controlapi-buildid"
"""Metadata key that ties a gateway call to the Solve it belongs to."""

Metadata = tuple[tuple[str, str], ...]


BASE = "containerimage.base.config"
"""Key of the result's metadata (BuildKit's exporter/containerimage/exptypes, v0.13 and later)."""


@dataclass(frozen=True, slots=True)
class GitRevision:
    """What a name in a git repository stands for now."""

    ref: str
    commit: str


@dataclass(frozen=True, slots=True)
class Base:
    """The image that a build's result stands on: its layers, uncompressed, from the lowest up.

    `history` is the number of entries in its history, of which empty layers have one as well.
    """

    diff_ids: tuple[str, ...]
    history: int
    architecture: str


class Gateway:
    """The gateway of one daemon; `solve` opens a build on it, and lasts as long as the build."""

    def __init__(
        self, channel: grpc.aio.Channel, solve: Callable[[Solve], Awaitable[object]]
    ) -> None:
        self._open = solve
        self._resolve = channel.unary_unary(
            BRIDGE + "ResolveSourceMeta",
            gateway_pb2.ResolveSourceMetaRequest.SerializeToString,
            gateway_pb2.ResolveSourceMetaResponse.FromString,
        )
        self._evaluate = channel.unary_unary(
            BRIDGE + "Solve",
            gateway_pb2.SolveRequest.SerializeToString,
            gateway_pb2.SolveResponse.FromString,
        )
        self._return = channel.unary_unary(
            BRIDGE + "Return",
            gateway_pb2.ReturnRequest.SerializeToString,
            gateway_pb2.ReturnResponse.FromString,
        )

    async def resolve_git(self, source: GitSource, session: str = "") -> GitRevision:
        """What `source.ref` stands for, as Control.resolve_git promises."""
        request = gateway_pb2.ResolveSourceMetaRequest(
            Source=git_op(source), LogName=f"[internal] resolve {source.url}"
        )
        async with self._build(Solve(ref="", session=session)) as metadata:
            answer = await self._resolve(request, metadata=metadata)
        found = answer.Git
        return GitRevision(ref=found.Ref, commit=found.CommitChecksum or found.Checksum)

    async def base_of(self, solve: Solve) -> Base | None:
        """The base image of what `solve` would build, as Control.base_of promises."""
        if "," in solve.attrs.get("platform", "") or _yes(solve.attrs.get("multi-platform", "")):
            raise Unsupported(
                "A build for several platforms has several base images: ask for one at a time."
            )
        request = gateway_pb2.SolveRequest(
            Frontend=solve.frontend,
            FrontendOpt=dict(solve.attrs),
            FrontendInputs=solve.inputs,
            allowResultReturn=True,
            allowResultArrayRef=True,
        )
        async with self._build(solve) as metadata:
            answer = await self._evaluate(request, metadata=metadata)
        found = answer.result.metadata.get(BASE)
        return _base(found) if found else None

    @contextlib.asynccontextmanager
    async def _build(self, frame: Solve) -> AsyncIterator[Metadata]:
        """A build for calls to belong to; what they carry for it."""
        ref = secrets.token_hex(12)
        metadata = ((BUILD_ID, ref),)
        frame = Solve(
            ref=ref,
            frontend="",
            session=frame.session,
            checksums=frame.checksums,
            entitlements=frame.entitlements,
            internal=True,
        )
        running = asyncio.ensure_future(self._open(frame))
        try:
            yield metadata
            # The empty result must be there: v0.32.2 ends itself with a nil pointer without one.
            done = gateway_pb2.ReturnRequest(result=gateway_pb2.Result())
            await self._return(done, metadata=metadata)
            await running
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await running


def _yes(attribute: str) -> bool:
    return attribute.lower() in {"1", "t", "true"}


def _base(config: bytes) -> Base:
    """What is asked of an image's config (the OCI's image-spec, config.md)."""
    try:
        fields = json.loads(config)
        layers = (fields.get("rootfs") or {}).get("diff_ids") or ()
        return Base(
            diff_ids=tuple(map(str, layers)),
            history=len(fields.get("history") or ()),
            architecture=str(fields.get("architecture", "")),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise BuildKitError("The daemon's answer about the base image is none.") from error
