"""What is asked of a StatefulSet's scale and of its Pods, and what the answers mean."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from imagewright.kube.client import KubeClient
from imagewright.kube.scale import HOLD, StatefulSet
from imagewright.ports import Conflict, Gone, Rejected, Scale
from tests.support.fake_api import Server, served

SCALE = "/apis/apps/v1/namespaces/ci/statefulsets/bk/scale"
POD = "/api/v1/namespaces/ci/pods/bk-2"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with served(Server()) as server:
        yield server


@pytest.fixture
async def workers(server: Server, tmp_path: Path) -> AsyncIterator[StatefulSet]:
    async with KubeClient(str(server.config(tmp_path, "token"))) as client:
        yield StatefulSet(client, "ci", "bk")


@pytest.mark.parametrize(
    ("spec", "replicas"), [({"replicas": 3}, 3), ({}, 0)], ids=["three", "none: it is left out"]
)
async def test_how_many_are_asked_for(
    server: Server, workers: StatefulSet, spec: dict[str, int], replicas: int
) -> None:
    server.answers = [(200, {"metadata": {"resourceVersion": "7"}, "spec": spec})]
    assert await workers.scale() == Scale(replicas, "7")
    assert server.asked[0]["line"] == f"GET {SCALE}"


async def test_another_number_is_asked_for_on_a_condition(
    server: Server, workers: StatefulSet
) -> None:
    server.answers = [(200, {"metadata": {"resourceVersion": "8"}, "spec": {}})]
    assert await workers.resize(Scale(1, "7"), 0) == Scale(0, "8")
    assert server.asked[0]["line"] == f"PATCH {SCALE}"
    assert server.asked[0]["kind"] == "application/merge-patch+json"
    assert server.bodies == [{"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 0}}]


@pytest.mark.parametrize(
    ("status", "kind"), [(409, Conflict), (404, Gone)], ids=["somebody wrote", "it is gone"]
)
async def test_a_number_that_cannot_be_asked_for(
    server: Server, workers: StatefulSet, status: int, kind: type[Conflict]
) -> None:
    server.answers = [(status, {"message": "no", "details": {"name": "workers"}})]
    with pytest.raises(Conflict) as caught:
        await workers.resize(Scale(1, "7"), 2)
    assert type(caught.value) is kind


async def test_a_pod_is_held_and_released_by_one_annotation(
    server: Server, workers: StatefulSet
) -> None:
    server.answers = [(200, {}), (200, {})]
    await workers.hold(2)
    await workers.release(2)
    assert [asked["line"] for asked in server.asked] == [f"PATCH {POD}"] * 2
    assert [body["metadata"] for body in server.bodies] == [
        {"annotations": {HOLD: "false"}},
        {"annotations": {HOLD: None}},
    ]


async def test_a_pod_that_is_gone_is_fine_and_one_that_is_refused_is_not(
    server: Server, workers: StatefulSet
) -> None:
    gone = {"details": {"name": "workers-2", "kind": "pods"}}
    server.answers = [(404, gone), (404, gone), (422, {"message": "no"})]
    await workers.hold(2)
    await workers.release(2)
    with pytest.raises(Rejected):
        await workers.hold(2)
