"""Events: posted beside the work, never in its way."""

import asyncio
from typing import Any

import pytest

from imagewright.domain.notice import Notice, Word
from imagewright.kube.events import WAITING, Bucket, Events, Pace, event_of, posting
from imagewright.metrics import Metrics
from imagewright.ports import Body, Rejected, Subject, Unavailable
from tests.support.makers import NOW

BUILD = Subject("ImageBuild", "team", "app", "uid-1")
PRUNE = Subject("BuildCachePrune", "", "nightly", "uid-2")
STARTED = Notice(Word.BUILD_STARTED, "Building on w.")
FAILED = Notice(Word.BUILD_FAILED, "exit code: 7.")


class Server:
    """Takes Events once it may; fails where it is told to."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, Body]] = []
        self.error: Exception | None = None
        self.go = asyncio.Event()

    async def create(self, path: str, body: Body) -> dict[str, Any]:
        """As the API server does."""
        await self.go.wait()
        if self.error is not None:
            raise self.error
        self.posted.append((path, body))
        return dict(body)


def counted(metrics: Metrics, result: str) -> float:
    """How many Events came out so."""
    return metrics.registry.get_sample_value("imagebuild_events_total", {"result": result}) or 0


async def told(server: Server, pace: Pace, *notices: Notice) -> Metrics:
    """What is counted once all of these have been told, and the operator has ended."""
    metrics = Metrics()
    async with posting(Events(server, "me", pace, metrics)) as events:
        for notice in notices:
            events.tell(BUILD, notice, NOW)
        server.go.set()
    return metrics


async def test_an_event_says_of_what_it_is_and_who_says_so() -> None:
    server = Server()
    metrics = await told(server, Pace(1, 10), FAILED)
    ((path, body),) = server.posted
    assert path == "/apis/events.k8s.io/v1/namespaces/team/events"
    assert body["regarding"]["uid"] == "uid-1"
    assert (body["type"], body["reason"], body["action"]) == ("Warning", "BuildFailed", "Build")
    assert body["eventTime"] == "2026-01-02T03:04:05.000000Z"
    assert (body["reportingController"], body["reportingInstance"]) == (
        "imagewright.dev/operator",
        "me",
    )
    assert counted(metrics, "posted") == 1


def test_an_event_of_a_kind_without_namespaces_is_in_the_default_one() -> None:
    body = event_of(PRUNE, Notice(Word.CACHE_PRUNED, "Freed 1 MB."), NOW, "me")
    assert body["metadata"]["namespace"] == "default"
    assert "namespace" not in body["regarding"]
    assert body["action"] == "Prune"


async def test_what_waits_is_posted_before_the_operator_ends_and_in_its_order() -> None:
    server = Server()
    await told(server, Pace(1, 10), STARTED, FAILED)
    assert [body["reason"] for _, body in server.posted] == ["BuildStarted", "BuildFailed"]


async def test_a_flood_is_dropped_and_failures_are_told_nevertheless() -> None:
    server = Server()
    metrics = await told(server, Pace(0.001, 3), *[STARTED] * 10, FAILED)
    assert [body["reason"] for _, body in server.posted] == ["BuildStarted"] * 3 + ["BuildFailed"]
    assert counted(metrics, "dropped") == 7


async def test_none_is_posted_where_none_is_wanted() -> None:
    server = Server()
    await told(server, Pace(5, 0), STARTED, FAILED)
    assert server.posted == []


async def test_no_more_wait_than_there_is_room_for() -> None:
    server = Server()
    metrics = await told(server, Pace(1, 2 * WAITING), *[STARTED] * (WAITING + 5))
    assert counted(metrics, "dropped") == 5


async def test_what_the_server_does_not_take_is_let_go() -> None:
    server = Server()
    server.error = Rejected("a bad name")
    metrics = await told(server, Pace(1, 10), STARTED, STARTED)
    assert counted(metrics, "failed") == 2


async def test_a_namespace_that_takes_none_is_left_alone_for_a_while() -> None:
    server = Server()
    server.error = Unavailable("it is being terminated")
    metrics = await told(server, Pace(1, 10), STARTED, STARTED, FAILED)
    assert (counted(metrics, "failed"), counted(metrics, "dropped")) == (1, 2)


@pytest.mark.parametrize(("after", "allowed"), [(0.0, 0), (0.5, 1), (1.0, 2), (60.0, 3)], ids=str)
def test_a_bucket_fills_with_time_up_to_its_brim(after: float, allowed: int) -> None:
    moments = [0.0]
    bucket = Bucket(2, 3, lambda: moments[0])
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    moments[0] = after
    assert sum(bucket.take() for _ in range(9)) == allowed
