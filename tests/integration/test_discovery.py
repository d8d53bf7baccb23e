"""A Service's workers at a real API server, under the role that the chart grants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from pathlib import Path

import pytest

import devstack
from imagewright.kube.client import KubeClient
from imagewright.kube.endpoints import ServiceRef, endpoints
from imagewright.ports import Endpoint
from tests.support.proxy import ApiProxy
from tests.support.worker_pods import WorkerPods

GOOD = {"ready": True, "serving": True, "terminating": False}
UNREADY = {"ready": False, "serving": False, "terminating": False}
ENDING = {"ready": True, "serving": True, "terminating": True}
pytestmark = pytest.mark.usefixtures("worker_rights")


def workers(*ordinals: int) -> frozenset[Endpoint]:
    """What is found of the Pods with these numbers."""
    return frozenset(Endpoint(f"bk-{one}", f"10.0.0.{one}:1234") for one in ordinals)


async def told(found: Awaitable[frozenset[Endpoint]]) -> frozenset[Endpoint]:
    """The next set that is told, within a time that is long enough."""
    async with asyncio.timeout(10):
        return await found


@pytest.fixture
def service(worker_pods: WorkerPods) -> ServiceRef:
    return ServiceRef(worker_pods.namespace, "bk", "buildkit")


@pytest.fixture
async def client(stack: devstack.Stack) -> AsyncIterator[KubeClient]:
    """The operator's own client."""
    async with KubeClient(str(stack.operator_kubeconfig)) as client:
        yield client


async def test_workers_are_found_as_they_come_and_go(
    client: KubeClient, service: ServiceRef, worker_pods: WorkerPods
) -> None:
    async with aclosing(endpoints(client, service)) as found:
        assert await told(anext(found)) == workers()
        await asyncio.to_thread(worker_pods.tell, "bk-a", {0: GOOD, 1: UNREADY})
        assert await told(anext(found)) == workers(0)
        await asyncio.to_thread(worker_pods.tell, "bk-b", {2: {}, 0: GOOD})
        assert await told(anext(found)) == workers(0, 2)
        await asyncio.to_thread(worker_pods.tell, "bk-a", {0: GOOD, 1: GOOD})
        assert await told(anext(found)) == workers(0, 1, 2)
        await asyncio.to_thread(worker_pods.tell, "bk-b", {2: ENDING})
        assert await told(anext(found)) == workers(0, 1)
        await asyncio.to_thread(worker_pods.untell, "bk-a")
        assert await told(anext(found)) == workers()


async def test_a_port_may_be_named_by_its_number(
    client: KubeClient, service: ServiceRef, worker_pods: WorkerPods
) -> None:
    await asyncio.to_thread(worker_pods.tell, "bk-a", {0: GOOD})
    by_number = ServiceRef(service.namespace, service.name, "1234")
    async with aclosing(endpoints(client, by_number)) as found:
        assert await told(anext(found)) == workers(0)


async def test_a_watch_that_breaks_misses_nothing(
    stack: devstack.Stack, service: ServiceRef, worker_pods: WorkerPods, tmp_path: Path
) -> None:
    await asyncio.to_thread(worker_pods.tell, "bk-a", {0: GOOD})
    async with ApiProxy(str(stack.operator_kubeconfig)) as proxy:
        config = tmp_path / "kubeconfig"
        config.write_text(proxy.kubeconfig())
        async with (
            KubeClient(str(config)) as client,
            aclosing(endpoints(client, service)) as found,
        ):
            assert await told(anext(found)) == workers(0)
            later = asyncio.ensure_future(anext(found))
            await proxy.break_watches()
            await asyncio.to_thread(worker_pods.tell, "bk-a", {1: GOOD})
            assert await told(later) == workers(1)
