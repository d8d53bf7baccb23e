"""BuildKit's Control service over one channel: build, follow, ask, make room.

A build lives only as long as the call that asked for it: cancelling the task that awaits `solve()`
cancels the call, and the daemon stops the build. There is no other way to stop one.
"""

from collections.abc import AsyncIterator, Sequence

import grpc

from imagewright.clients.buildkit.cancellation import Pipe, answer_of
from imagewright.clients.buildkit.channel import Tls, open_channel
from imagewright.clients.buildkit.definition import GitSource
from imagewright.clients.buildkit.errors import Unsupported, translate
from imagewright.clients.buildkit.gateway import Base, Gateway, GitRevision
from imagewright.clients.buildkit.proto import control_pb2
from imagewright.clients.buildkit.proto.control_pb2 import StatusResponse
from imagewright.clients.buildkit.request import Cache, Export, Solve, message_of
from imagewright.clients.buildkit.status import Event, event_of
from imagewright.clients.buildkit.usage import Prune, Record, prune_message, record_of
from imagewright.clients.buildkit.workers import SPACE_LIMITS, WorkerInfo, is_since, worker_of

__all__ = [
    "Base",
    "Cache",
    "Control",
    "Export",
    "GitRevision",
    "Prune",
    "Record",
    "Solve",
    "WorkerInfo",
]

CONTROL = "/moby.buildkit.v1.Control/"


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
        self._workers = self._channel.unary_unary(
            CONTROL + "ListWorkers",
            control_pb2.ListWorkersRequest.SerializeToString,
            control_pb2.ListWorkersResponse.FromString,
        )
        self._usage = self._channel.unary_unary(
            CONTROL + "DiskUsage",
            control_pb2.DiskUsageRequest.SerializeToString,
            control_pb2.DiskUsageResponse.FromString,
        )
        self._prune = self._channel.unary_stream(
            CONTROL + "Prune",
            control_pb2.PruneRequest.SerializeToString,
            control_pb2.UsageRecord.FromString,
        )
        self._gateway = Gateway(self._channel, self.solve)

    async def close(self) -> None:
        """End the channel and every call on it."""
        await self._channel.close()

    async def solve(self, request: Solve) -> dict[str, str]:
        """Build, and return what the exporters said (`containerimage.digest`, ...).

        Raises SolveError where the build failed, Unreachable where the daemon did.
        """
        call = self._solve(message_of(request))
        try:
            answer = await answer_of(call, call)
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        return dict(answer.ExporterResponse)

    async def follow(self, ref: str) -> AsyncIterator[Event]:
        """The events of a build, from its first to its last. May be called before `solve()`.

        The daemon waits about 6 s for a build of that name before it gives up.
        """
        call = self._status(control_pb2.StatusRequest(Ref=ref))
        try:
            while isinstance(message := await answer_of(call, call.read()), StatusResponse):
                yield event_of(message)
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error

    async def info(self, timeout_seconds: float = 5) -> str:
        """The daemon's version, such as `v0.32.2`; empty where it cannot say (before v0.11).

        Some builds of distributions answer `v0.0.0+unknown`.
        """
        try:
            answer = await self._info(control_pb2.InfoRequest(), timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            meaning = translate(error)
            if isinstance(meaning, Unsupported):
                workers = await self.workers(timeout_seconds)
                return next((one.version for one in workers if one.version), "")
            raise meaning from error
        return answer.buildkitVersion.version

    async def workers(self, timeout_seconds: float = 5) -> tuple[WorkerInfo, ...]:
        """The workers that the daemon has; there is one, mostly."""
        request = control_pb2.ListWorkersRequest()
        try:
            answer = await self._workers(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        return tuple(map(worker_of, answer.record))

    async def is_since(self, oldest: tuple[int, int]) -> bool:
        """Whether the daemon is sure to be a BuildKit of that version or later.

        Where it is not sure to be of SPACE_LIMITS, a Prune with only `max_used_space` or
        `min_free_space` would delete everything: refuse it.
        """
        if is_since(await self.info(), oldest):
            return True
        proven = any(worker.space_limits for worker in await self.workers())
        return proven and oldest <= SPACE_LIMITS

    async def disk_usage(self, filters: Sequence[str] = ()) -> tuple[Record, ...]:
        """What the daemon's cache holds. It may take long: the daemon measures what it has not.

        Raises SolveError for a filter that is none.
        """
        try:
            answer = await self._usage(control_pb2.DiskUsageRequest(filter=filters))
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error
        return tuple(map(record_of, answer.record))

    async def prune(self, prune: Prune) -> tuple[Record, ...]:
        """Delete from the daemon's cache, and return what was deleted.

        Raises SolveError for a filter that is none. If the daemon fails midway, what it deleted
        before is deleted; cancelling makes it stop.
        """
        try:
            return tuple([record_of(one) async for one in self._prune(prune_message(prune))])
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error

    def open_session(self, metadata: Sequence[tuple[str, str]]) -> Pipe:
        """The raw stream of a session: serialized BytesMessages both ways."""
        return Pipe(self._session(metadata=tuple(metadata)))

    async def resolve_git(self, source: GitSource, session: str = "") -> GitRevision:
        """What `source.ref` (empty: the default branch) stands for, as the daemon sees it.

        The daemon itself asks the repository, over the network and with the git that will fetch
        it; for one that is private, with what the session of that id has. Raises SolveError
        where the repository or the name does not exist.
        """
        return await self._gateway.resolve_git(source, session)

    async def base_of(self, request: Solve) -> Base | None:
        """The base image of the result that `request` asks for; nothing is built, or exported.

        That is the image below its last stage, also where that stage begins with another one of
        the same Dockerfile. None where there is none (FROM scratch), and where nobody can tell:
        before v0.13, with a `# syntax` as old, and for a stage that a named context replaces.

        Raises Unsupported for several platforms, and SolveError for a Dockerfile that is wrong,
        or whose images do not exist. `request.session` must be open.
        """
        return await self._gateway.base_of(request)
