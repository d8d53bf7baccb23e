"""Plays what the stack has not: a StatefulSet's controller, its kubelet, its EndpointSlices.

A Pod is a real buildkitd at an address of its own, which a Pod that comes back does not keep.
"""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import devstack
from devstack.components import Place, buildkitd
from devstack.containers import remove_containers
from devstack.debian import program
from devstack.identity import run
from devstack.server import Server, await_ready, start
from devstack.stack import unmount
from imagewright.kube.client import KubeClient
from tests.support.worker_pods import NAME, PORT_NUMBER, WorkerPods

LOOK_SECONDS = 0.1
READY = {"ready": True, "serving": True, "terminating": False}
ENDING = {"ready": False, "serving": True, "terminating": True}


@dataclass(slots=True)
class Pod:
    """A worker that runs."""

    address: str
    server: Server
    told: float = 0.0
    """When it was told of last, in seconds of the monotonic clock: before the API server knew."""


@dataclass(slots=True)
class WorkerPlayer:
    """The Pods of the StatefulSet `bk`: started, stopped, and told of in a slice for each."""

    stack: devstack.Stack
    pods: WorkerPods
    folder: Path
    running: dict[int, Pod] = field(default_factory=dict)
    most: int = 0
    """As many as there ever were at once."""

    def start(self, ordinal: int) -> None:
        """A Pod that is ready, and told of."""
        # Addresses between a provider and its customers (RFC 6598): nobody else is there.
        one, two = random.randrange(256), random.randrange(1, 255)  # noqa: S311  # no secret
        address = f"100.100.{one}.{two}"
        _ip("add", address)
        folder = self.folder / str(ordinal)
        folder.mkdir(parents=True, exist_ok=True)
        place = Place(self.stack.binaries["buildkitd"], folder)
        command = buildkitd(place, f"tcp://{address}:{PORT_NUMBER}", self.stack.registries)
        command = replace(command, ready=lambda: _listens(address))
        self.running[ordinal] = Pod(address, await_ready(command, start(command, folder)))
        self.most = max(self.most, len(self.running))
        self.pods.make_pod(ordinal)
        self.come(ordinal)

    def stop(self, ordinal: int) -> None:
        """SIGTERM, as the kubelet does, after the slice has said so."""
        pod = self.running.pop(ordinal)
        self.pods.tell(f"{NAME}-{ordinal}", {ordinal: ENDING}, pod.address)
        pod.server.stop()
        self.pods.untell(f"{NAME}-{ordinal}")
        self.pods.remove_pod(ordinal)
        _ip("del", pod.address)

    def come(self, ordinal: int) -> None:
        """Tell of a Pod that runs."""
        pod = self.running[ordinal]
        pod.told = time.monotonic()
        self.pods.tell(f"{NAME}-{ordinal}", {ordinal: READY}, pod.address)

    def leave(self, ordinal: int) -> None:
        """Tell no more of a Pod, which goes on."""
        self.pods.untell(f"{NAME}-{ordinal}")

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Start and stop Pods as the StatefulSet's number says, while the context is open."""
        over = asyncio.Event()
        task = asyncio.create_task(self._follow(over))
        try:
            yield
        finally:
            over.set()
            await task

    async def empty(self) -> None:
        """Wait until no Pod is left. Raises TimeoutError."""
        async with asyncio.timeout(60):
            while self.running:
                await asyncio.sleep(LOOK_SECONDS)

    async def _follow(self, over: asyncio.Event) -> None:
        path = f"/apis/apps/v1/namespaces/{self.pods.namespace}/statefulsets/{NAME}"
        async with KubeClient(str(self.stack.kubeconfig)) as client:
            while not over.is_set():
                wanted = (await client.get(path))["spec"].get("replicas", 0)
                for ordinal in sorted(set(range(wanted)) - self.running.keys()):
                    await asyncio.to_thread(self.start, ordinal)
                for ordinal in sorted(self.running.keys() - set(range(wanted)), reverse=True):
                    await asyncio.to_thread(self.stop, ordinal)
                await asyncio.sleep(LOOK_SECONDS)

    def close(self) -> None:
        """End every Pod, and remove what it left."""
        for pod in self.running.values():
            pod.server.stop()
            _ip("del", pod.address)
        remove_containers(self.folder)
        unmount(self.folder)


def _listens(address: str) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, PORT_NUMBER)) == 0


def _ip(verb: str, address: str) -> None:
    run([str(program("ip")), "address", verb, f"{address}/32", "dev", "lo"])


@pytest.fixture
async def player(
    stack: devstack.Stack, worker_pods: WorkerPods, tmp_path: Path
) -> AsyncIterator[WorkerPlayer]:
    """Nobody runs yet."""
    played = WorkerPlayer(stack, worker_pods, tmp_path / "pods")
    yield played
    await asyncio.to_thread(played.close)
