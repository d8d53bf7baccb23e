"""A daemon whose status stream never ends, and one that never answers at all."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from imagewright.builders import buildkit as module
from imagewright.builders.buildkit import BuildKitBuilder
from imagewright.clients.buildkit.control import CONTROL, Control
from imagewright.clients.buildkit.proto import control_pb2
from imagewright.clients.registry.tokens import TokenClient
from imagewright.domain.facts import Ended
from imagewright.domain.outcome import Built
from imagewright.domain.plan import Inline, Plan
from imagewright.jobs import Jobs, Task
from imagewright.metrics import Metrics
from imagewright.scheduler import Scheduler
from tests.support.makers import NOW, UID
from tests.support.parts import FakeKeyring, a_backend
from tests.support.pooling import a_pool, a_worker, an_entry

PLAN = Plan(Inline({"Dockerfile": b"FROM scratch\n"}))


class EndlessDaemon:
    """Answers every Solve once `go` is set, and keeps every other stream open for ever."""

    def __init__(self) -> None:
        self.go, self.solving = asyncio.Event(), asyncio.Event()

    async def solve(self, _request: object, _context: object) -> control_pb2.SolveResponse:
        self.solving.set()
        await self.go.wait()
        return control_pb2.SolveResponse()

    async def status(
        self, _request: object, _context: object
    ) -> AsyncIterator[control_pb2.StatusResponse]:
        yield control_pb2.StatusResponse()
        await asyncio.Event().wait()

    async def session(
        self, _requests: AsyncIterator[bytes], _context: object
    ) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""


@asynccontextmanager
async def serving(daemon: EndlessDaemon) -> AsyncIterator[Control]:
    """A client of the daemon, while the context is open."""
    server = grpc.aio.server()
    handlers: dict[str, Any] = {
        "Solve": grpc.unary_unary_rpc_method_handler(
            daemon.solve, response_serializer=control_pb2.SolveResponse.SerializeToString
        ),
        "Status": grpc.unary_stream_rpc_method_handler(
            daemon.status, response_serializer=control_pb2.StatusResponse.SerializeToString
        ),
        "Session": grpc.stream_stream_rpc_method_handler(daemon.session),
    }
    service = CONTROL.strip("/")
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    control = Control(f"tcp://127.0.0.1:{port}")
    try:
        yield control
    finally:
        await control.close()
        await server.stop(None)


class Site:
    """Jobs on one slot of that daemon."""

    def __init__(self, control: Control) -> None:
        self.worker = a_worker("w", 1, a_backend(BuildKitBuilder(control, TokenClient())))
        metrics = Metrics()
        scheduler = Scheduler([a_pool(self.worker)], time.monotonic, metrics)
        self.jobs = Jobs(lambda _: None, lambda: NOW, metrics)
        scheduler.enter("default", an_entry(UID, PLAN))
        self.jobs.begin(UID, Task("inputs", PLAN, FakeKeyring()), "ref", scheduler.take(UID))

    async def until(self, right: Callable[[], object]) -> None:
        """Let the loop turn until it is right."""
        async with asyncio.timeout(1.5):
            while not right():
                await asyncio.sleep(0.001)


@pytest.mark.row("F13")
async def test_a_status_that_never_ends_holds_neither_the_result_nor_the_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FOLLOW_SECONDS", 0.05)
    daemon = EndlessDaemon()
    daemon.go.set()
    async with serving(daemon) as control:
        site = Site(control)
        await site.until(lambda: site.worker.leased == 0)
        job = site.jobs.look(UID)
        assert job is not None
        assert job.state == Ended(Built())
        await site.until(lambda: not followers())


@pytest.mark.row("F13")
@pytest.mark.parametrize("answered", [False, True], ids=["while it builds", "after it has built"])
async def test_a_cancelled_build_waits_for_its_daemon_no_longer_than_it_may(
    answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagewright.builders.buildkit.CONFIRM_SECONDS", 0.05)
    daemon = EndlessDaemon()

    async def answer(_: object) -> dict[str, str]:
        daemon.solving.set()
        return {}

    async with serving(daemon) as control:
        if answered:
            monkeypatch.setattr(control, "solve", answer)
        site = Site(control)
        await asyncio.wait_for(daemon.solving.wait(), 1.5)
        assert site.worker.leased == 1
        site.jobs.cancel(UID)
        await site.until(lambda: site.worker.leased == 0)
        await site.until(lambda: not followers())


def followers() -> list["asyncio.Task[object]"]:
    """Tasks that still follow a status stream."""
    return [task for task in asyncio.all_tasks() if "_follow" in repr(task.get_coro())]
