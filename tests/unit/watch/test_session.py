"""The session that kopf asks with, against a real HTTP server that stands for the API server."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
import yaml
from aiohttp import web

from imagewright.kube.access import load_access
from imagewright.ports import Body
from imagewright.watch.session import Ear, kinds, session
from tests.support.makers import a_body

ITEMS = "/apis/imagewright.dev/v1alpha1/imagebuilds"
NAMESPACED = "/apis/imagewright.dev/v1alpha1/namespaces/a/imagebuilds"
OTHERS = "/apis/imagewright.dev/v1alpha1/others"


def made(uid: str, second: int, **spec: Any) -> dict[str, Any]:
    """A build that was created then."""
    return a_body(spec, uid=uid, creationTimestamp=f"2026-01-02T03:04:{second:02}Z")


LISTED = [made("young", 30), made("old", 10), made("urgent", 40, priority=1), made("middle", 20)]
LISTED.append(made("over", 5))


REFUSED: dict[str, Any] = {}
"""More of what the server answers."""
Answer = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def a_server(answer: Answer) -> AsyncIterator[str]:
    """The URL of a server that answers everything so."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def asked() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """The URL of a server that lists these everywhere, and the headers that it was sent."""
    headers: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        headers.append(dict(request.headers))
        begin = int(request.query.get("continue", 0))
        end = begin + int(request.query.get("limit", len(LISTED)))
        more = {"continue": str(end)} if end < len(LISTED) else {}
        body = {"kind": "List", "metadata": more, "items": LISTED[begin:end]}
        return web.json_response(body, **REFUSED)

    async with a_server(answer) as url:
        yield url, headers


def a_config(folder: Path, server: str) -> str:
    """A kubeconfig for it."""
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.fixture
def taken() -> list[Body]:
    """The builds that were handed over."""
    return []


@pytest.fixture
def trouble() -> list[str]:
    """How each request fared."""
    return []


@pytest.fixture
async def login(
    asked: tuple[str, list[dict[str, str]]],
    taken: list[Body],
    trouble: list[str],
    tmp_path: Path,
) -> AsyncIterator[kopf.AiohttpSession]:
    """A session that hands builds over."""

    def listed(_: str, bodies: list[Body]) -> None:
        taken.extend(bodies)

    ear = Ear(lambda body: body["metadata"]["uid"] == "over", listed, trouble.append)
    made = await session(await load_access(a_config(tmp_path, asked[0])), {"imagebuilds": ear})
    yield made
    await made.aiohttp_session.close()


@pytest.mark.parametrize("place", [ITEMS, NAMESPACED], ids=["all", "a namespace"])
async def test_a_list_goes_past_kopf_the_most_urgent_first(
    login: kopf.AiohttpSession, taken: list[Body], place: str
) -> None:
    async with login.aiohttp_session.get(f"{login.server}{place}") as answer:
        assert await answer.json() == {"kind": "List", "metadata": {}, "items": []}
    assert [one["metadata"]["uid"] for one in taken] == ["urgent", "old", "middle", "young"]


async def test_a_list_in_pages_is_handed_over_when_it_is_complete(
    login: kopf.AiohttpSession, taken: list[Body]
) -> None:
    # The first list is given up after a page.
    for place in ("limit=2", "limit=2", "limit=2&continue=2", "limit=2&continue=4"):
        assert taken == []
        async with login.aiohttp_session.get(f"{login.server}{ITEMS}?{place}") as answer:
            assert (await answer.json())["items"] == []
    assert [one["metadata"]["uid"] for one in taken] == ["urgent", "old", "middle", "young"]


async def test_another_kind_is_listed_as_it_is(
    login: kopf.AiohttpSession, taken: list[Body]
) -> None:
    async with login.aiohttp_session.get(f"{login.server}{OTHERS}") as answer:
        assert (await answer.json())["items"] == LISTED
    assert taken == []


async def test_an_object_is_not_taken_for_a_list(login: kopf.AiohttpSession) -> None:
    async with login.aiohttp_session.get(f"{login.server}{ITEMS}/new") as answer:
        assert (await answer.json())["items"] == LISTED


async def test_kopf_asks_as_we_do(
    login: kopf.AiohttpSession, asked: tuple[str, list[dict[str, str]]]
) -> None:
    async with login.aiohttp_session.get(f"{login.server}{ITEMS}") as answer:
        assert answer.status == 200
    sent = asked[1][0]
    assert (sent["Authorization"], sent["User-Agent"]) == ("Bearer t", "imagewright")
    assert sent["Accept-Encoding"] == "identity"


async def test_each_request_tells_how_it_fared(
    login: kopf.AiohttpSession, trouble: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with login.aiohttp_session.get(f"{login.server}{ITEMS}"):
        assert trouble == [""]
    monkeypatch.setitem(REFUSED, "status", 403)
    async with login.aiohttp_session.get(f"{login.server}{ITEMS}"):
        assert trouble[1:] == ["the API server answered with 403"]
    with pytest.raises(aiohttp.ClientConnectionError):
        await login.aiohttp_session.get("http://127.0.0.1:9/imagebuilds")
    assert "did not answer" in trouble[2]


@pytest.mark.parametrize(
    ("status", "content", "found"),
    [
        (404, "404 page not found", set()),
        (200, '{"resources": []}', set()),
        (
            200,
            '{"resources": [{"name": "imagebuilds"}, {"name": "imagebuilds/status"}]}',
            {"imagebuilds", "imagebuilds/status"},
        ),
    ],
    ids=["a group that is not served has no kinds", "nor has an empty one", "one that is served"],
)
async def test_which_kinds_are_served(
    tmp_path: Path, status: int, content: str, found: set[str]
) -> None:
    async def told(request: web.Request) -> web.Response:
        served = request.path == "/apis/imagewright.dev/v1alpha1"
        return web.Response(status=status if served else 500, text=content)

    async with a_server(told) as url:
        assert await kinds(await load_access(a_config(tmp_path, url))) == found


async def test_a_server_that_fails_does_not_say_that_a_kind_is_not_served(tmp_path: Path) -> None:
    async def told(_: web.Request) -> web.Response:
        return web.Response(status=503)

    async with a_server(told) as url:
        with pytest.raises(aiohttp.ClientResponseError):
            await kinds(await load_access(a_config(tmp_path, url)))
