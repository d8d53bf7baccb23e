"""A Service's workers, followed through everything that an API server does to a watch."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from imagewright.kube import client as client_module
from imagewright.kube import endpoints as endpoints_module
from imagewright.kube.client import KubeClient
from imagewright.kube.endpoints import ServiceRef, endpoints
from imagewright.ports import Endpoint
from tests.support.fake_api import Answering, served

SERVICE = ServiceRef("ci", "bk", "buildkit")
PATH = "/apis/discovery.k8s.io/v1/namespaces/ci/endpointslices"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Follow = AsyncGenerator[frozenset[Endpoint], None]
EXPIRED = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}


def a_slice(version: str, *ordinals: int, name: str = "bk-x") -> dict[str, Any]:
    """A slice that holds the Pods with these numbers."""
    return {
        "metadata": {"name": name, "resourceVersion": version},
        "addressType": "IPv4",
        "ports": [{"name": "buildkit", "port": 1234}],
        "endpoints": [
            {"addresses": [f"10.0.0.{one}"], "targetRef": {"kind": "Pod", "name": f"bk-{one}"}}
            for one in ordinals
        ],
    }


def event(kind: str, body: dict[str, Any]) -> bytes:
    """A line of a watch."""
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


def bookmark(version: str) -> bytes:
    """A line that only says how far the watch is."""
    return event("BOOKMARK", {"kind": "EndpointSlice", "metadata": {"resourceVersion": version}})


def workers(*ordinals: int) -> frozenset[Endpoint]:
    """What is found of the Pods with these numbers."""
    return frozenset(Endpoint(f"bk-{one}", f"10.0.0.{one}:1234") for one in ordinals)


def listing(version: str, *slices: dict[str, Any], more: str = "") -> Answer:
    """A page of a list."""

    async def answer(_: web.Request) -> web.StreamResponse:
        metadata = {"resourceVersion": version, "continue": more}
        return web.json_response({"metadata": metadata, "items": slices})

    return answer


def failing(status: int) -> Answer:
    """An error."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "not now"}, status=status)

    return answer


def watching(*pieces: bytes, end: str = "closed") -> Answer:
    """A watch that says this, and then is closed, or torn off, or stays open."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if end == "torn":
            assert request.transport is not None
            request.transport.abort()
        elif end == "open":
            await asyncio.Event().wait()
        return response

    return answer


class Slices(Answering):
    """Answers in turn; a request that no answer is left for hangs."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.path == PATH
        assert request.query["labelSelector"] == "kubernetes.io/service-name=bk"
        self.asked.append(dict(request.query))
        if not self.answers:
            await asyncio.Event().wait()
        return await self.answers.pop(0)(request)

    def lines(self) -> list[str]:
        """What was asked, in short: `list` or `watch 7`."""
        return [
            f"watch {query['resourceVersion']}" if "watch" in query else "list"
            for query in self.asked
        ]


@pytest.fixture
async def server() -> AsyncIterator[Slices]:
    async with served(Slices()) as server:
        yield server


@pytest.fixture
async def found(server: Slices, tmp_path: Path) -> AsyncIterator[Follow]:
    """The endpoints that are found at that server."""
    config = str(server.config(tmp_path, "token"))
    async with KubeClient(config) as client, aclosing(endpoints(client, SERVICE)) as found:
        yield found


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were to be waited; nobody waits for them."""
    asked: list[float] = []

    async def rest(seconds: float) -> None:
        asked.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(endpoints_module, "_rest", rest)
    return asked


async def test_what_is_there_comes_first_and_then_each_change(
    server: Slices, found: Follow
) -> None:
    server.answers = [
        listing("5", a_slice("4", 0)),
        watching(
            event("ADDED", a_slice("6", 1, name="bk-y")),
            event("MODIFIED", a_slice("7", name="bk-y")),
            event("MODIFIED", a_slice("8", 0, 2)),
            event("DELETED", a_slice("9", 0, 2)),
            end="open",
        ),
    ]
    seen = [await anext(found) for _ in range(5)]
    assert seen == [workers(0), workers(0, 1), workers(0), workers(0, 2), workers()]
    assert server.lines() == ["list", "watch 5"]
    assert server.asked[1]["allowWatchBookmarks"] == "true"


async def test_a_service_that_has_nobody_is_told_as_that(server: Slices, found: Follow) -> None:
    server.answers = [listing("5")]
    assert await anext(found) == workers()


async def test_what_changes_nothing_is_not_told(server: Slices, found: Follow) -> None:
    server.answers = [
        listing("5", a_slice("4", 0)),
        watching(
            event("MODIFIED", a_slice("6", 0)),
            bookmark("7"),
            event("ADDED", a_slice("8", 0, name="bk-y")),
            event("DELETED", a_slice("9", 0)),
            event("MODIFIED", a_slice("10", 1, name="bk-y")),
            end="open",
        ),
    ]
    assert [await anext(found) for _ in range(2)] == [workers(0), workers(1)]


async def test_a_list_is_read_to_its_last_page(server: Slices, found: Follow) -> None:
    server.answers = [
        listing("5", a_slice("3", 0), more="next"),
        listing("5", a_slice("4", 1, name="bk-y")),
    ]
    assert await anext(found) == workers(0, 1)
    assert [query.get("continue") for query in server.asked] == [None, "next"]
    assert {query["limit"] for query in server.asked} == {"100"}


async def test_a_watch_that_ends_goes_on_from_where_it_was(
    server: Slices, found: Follow, pauses: list[float]
) -> None:
    server.answers = [
        listing("5", a_slice("4", 0)),
        watching(event("MODIFIED", a_slice("6", 0, 1))),
        watching(bookmark("90")),
        watching(event("MODIFIED", a_slice("91", 1)), end="open"),
    ]
    assert [await anext(found) for _ in range(3)] == [workers(0), workers(0, 1), workers(1)]
    assert server.lines() == ["list", "watch 5", "watch 6", "watch 90"]
    assert set(pauses) == {endpoints_module.FIRST_PAUSE}


async def test_a_line_that_comes_in_pieces_is_one(server: Slices, found: Follow) -> None:
    line = event("MODIFIED", a_slice("6", 1)) + event("MODIFIED", a_slice("7", 2))
    pieces = [line[at : at + 7] for at in range(0, len(line), 7)]
    server.answers = [listing("5", a_slice("4", 0)), watching(*pieces, end="open")]
    assert [await anext(found) for _ in range(3)] == [workers(0), workers(1), workers(2)]


async def test_a_line_may_be_longer_than_what_is_read_at_once(
    server: Slices, found: Follow
) -> None:
    long = event("MODIFIED", {**a_slice("6", 1), "managedFields": "x" * 2_000_000})
    server.answers = [listing("5"), watching(long, end="open")]
    assert [await anext(found) for _ in range(2)] == [workers(), workers(1)]


BROKEN = {
    "closed within a line": (watching(event("MODIFIED", a_slice("6", 9))[:40]), "watch 5"),
    "torn off within a line": (
        watching(event("MODIFIED", a_slice("6", 9))[:40], end="torn"),
        "list",
    ),
    "torn off after a line": (watching(bookmark("6"), end="torn"), "list"),
    "a version that is too old, said in the watch": (watching(event("ERROR", EXPIRED)), "list"),
    "a version that is too old, said instead of it": (failing(410), "list"),
    "an error without a code": (watching(event("ERROR", {"message": "?"})), "list"),
    "too many requests": (failing(429), "list"),
    "a role that was taken away": (failing(403), "list"),
    "the page of a proxy": (watching(b"<html>\n"), "list"),
    "JSON that is no event": (watching(b'{"kind": "Status"}\n'), "list"),
    "an event of something else": (watching(event("ADDED", {"a": 1})), "list"),
}


@pytest.mark.parametrize(("answer", "then"), BROKEN.values(), ids=BROKEN)
async def test_a_watch_that_breaks_is_made_good(
    server: Slices, found: Follow, answer: Answer, then: str
) -> None:
    server.answers = [listing("5", a_slice("4", 0)), answer]
    server.answers += [listing("8", a_slice("7", 1))] if then == "list" else []
    server.answers += [watching(event("MODIFIED", a_slice("9", 2)), end="open")]
    seen = [await anext(found)]
    while seen[-1] != workers(2):
        seen.append(await anext(found))
    assert seen == [workers(0), *([workers(1)] if then == "list" else []), workers(2)]
    assert server.lines()[:3] == ["list", "watch 5", then]


BAD_LISTS = {
    "a server that is overrun": failing(503),
    "no right to list": failing(403),
    "a version that is too old": failing(410),
    "the page of a proxy": watching(b"<html></html>"),
    "JSON that is no list": watching(b"[1]"),
    "a list without a version": watching(b'{"metadata": {}, "items": []}'),
}


@pytest.mark.parametrize("answer", BAD_LISTS.values(), ids=BAD_LISTS)
async def test_until_a_list_comes_nothing_is_told_and_each_pause_is_longer(
    server: Slices, found: Follow, pauses: list[float], answer: Answer
) -> None:
    server.answers = [answer, answer, answer, listing("5", a_slice("4", 0))]
    assert await anext(found) == workers(0)
    assert pauses == [0.1, 0.2, 0.4]


async def test_a_list_that_breaks_between_pages_is_begun_anew(
    server: Slices, found: Follow
) -> None:
    server.answers = [
        listing("5", a_slice("3", 7), more="next"),
        failing(410),
        listing("6", a_slice("4", 0)),
    ]
    assert await anext(found) == workers(0)


async def test_while_the_server_is_away_the_last_ones_stay(
    server: Slices, found: Follow, pauses: list[float]
) -> None:
    server.answers = [listing("5", a_slice("4", 0)), watching(bookmark("6"))]
    server.answers += [watching(end="torn")] * 3
    server.answers += [listing("9", a_slice("8", 0)), listing("9", a_slice("8", 1))]
    server.answers[-1:-1] = [failing(500)]
    assert [await anext(found) for _ in range(2)] == [workers(0), workers(1)]
    # The one list that was answered in between told nothing new, and did not shorten the pauses.
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6]


async def test_pauses_have_an_end(server: Slices, found: Follow, pauses: list[float]) -> None:
    server.answers = [failing(500)] * 12 + [listing("5")]
    assert await anext(found) == workers()
    assert pauses[-1] == endpoints_module.LONGEST_PAUSE


async def test_what_went_while_nobody_looked_is_gone(server: Slices, found: Follow) -> None:
    server.answers = [
        listing("5", a_slice("3", 0), a_slice("4", 1, name="bk-y")),
        watching(event("ERROR", EXPIRED)),
        listing("9", a_slice("3", 0)),
    ]
    assert [await anext(found) for _ in range(2)] == [workers(0, 1), workers(0)]


async def test_a_watch_that_falls_silent_is_given_up(
    server: Slices, found: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "WATCH_TIMEOUT", aiohttp.ClientTimeout(sock_read=0.05))
    server.answers = [
        listing("5", a_slice("4", 0)),
        watching(bookmark("6"), end="open"),
        listing("8", a_slice("7", 1)),
    ]
    assert [await anext(found) for _ in range(2)] == [workers(0), workers(1)]


async def test_an_expired_token_is_read_again(
    server: Slices, found: Follow, tmp_path: Path
) -> None:
    server.answers = [
        listing("5", a_slice("4", 0)),
        failing(401),
        failing(401),
        listing("8", a_slice("7", 1)),
    ]
    assert [await anext(found) for _ in range(2)] == [workers(0), workers(1)]
    assert server.lines()[:4] == ["list", "watch 5", "list", "list"]


async def test_a_credential_that_cannot_be_read_is_waited_for(
    server: Slices, found: Follow, tmp_path: Path, pauses: list[float]
) -> None:
    config = tmp_path / "kubeconfig"
    good = config.read_text()
    config.write_text("{}")
    server.answers = [failing(401), failing(401), listing("5", a_slice("4", 0))]
    looking = asyncio.ensure_future(anext(found))
    async with asyncio.timeout(1):
        while len(pauses) < 1:
            await asyncio.sleep(0.001)
    config.write_text(good)
    assert await looking == workers(0)


async def test_it_ends_only_when_it_is_cancelled(server: Slices, found: Follow) -> None:
    server.answers = [listing("5", a_slice("4", 0)), watching(end="open")]
    assert await anext(found) == workers(0)
    looking = asyncio.ensure_future(anext(found))
    async with asyncio.timeout(1):
        while len(server.asked) < 2:
            await asyncio.sleep(0.001)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
