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
from imagewright.reconcile.store import BUILDS, Store
from imagewright.watch.session import Ear, kinds, session
from tests.support.makers import a_body

ITEMS = "/apis/imagewright.dev/v1alpha1/imagebuilds"
DONE = {"phase": "Succeeded", "observedGeneration": 1}


def over(uid: str, **metadata: Any) -> dict[str, Any]:
    """A build that has ended."""
    return {**a_body(uid=uid, name=uid, **metadata), "status": DONE}


LISTS: list[str] = []
TROUBLE: list[str] = []
LISTED = [over("over"), a_body(uid="new"), over("known"), over("edited", generation=2)]


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
        return web.json_response({"kind": "List", "items": LISTED})

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
async def login(
    asked: tuple[str, list[dict[str, str]]], tmp_path: Path
) -> AsyncIterator[kopf.AiohttpSession]:
    """A session, and a store that knows one of the builds as running."""
    store = Store(BUILDS, lambda _: None)
    store.see(a_body(uid="known", name="known"))
    made = await session(
        await load_access(a_config(tmp_path, asked[0])),
        {"imagebuilds": Ear(store.idle, LISTS.append, TROUBLE.append)},
    )
    yield made
    await made.aiohttp_session.close()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (f"{ITEMS}?limit=100", ["new", "known", "edited"]),
        ("/apis/imagewright.dev/v1alpha1/namespaces/a/imagebuilds", ["new", "known", "edited"]),
        ("/apis/imagewright.dev/v1alpha1/others", ["over", "new", "known", "edited"]),
    ],
    ids=[
        "a list leaves out what is over, unless it is not known that it is",
        "so does the list of a namespace",
        "another kind is listed in full",
    ],
)
async def test_what_kopf_is_told(login: kopf.AiohttpSession, path: str, told: list[str]) -> None:
    async with login.aiohttp_session.get(f"{login.server}{path}") as answer:
        content = await answer.json()
    assert [one["metadata"]["uid"] for one in content["items"]] == told
    assert content["kind"] == "List"


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
