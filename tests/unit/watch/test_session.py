"""The session that kopf asks with, against a real HTTP server that stands for the API server."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml
from aiohttp import web

from imagewright.kube.access import load_access
from imagewright.reconcile.store import BUILDS, Store
from imagewright.watch.session import Ear, session
from tests.support.makers import a_body

ITEMS = "/apis/imagewright.dev/v1alpha1/imagebuilds"
DONE = {"phase": "Succeeded", "observedGeneration": 1}


def over(uid: str, **metadata: Any) -> dict[str, Any]:
    """A build that has ended."""
    return {**a_body(uid=uid, name=uid, **metadata), "status": DONE}


LISTS: list[str] = []
TROUBLE: list[str] = []
LISTED = [over("over"), a_body(uid="new"), over("known"), over("edited", generation=2)]


@pytest.fixture
async def asked() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """The URL of a server that lists these everywhere, and the headers that it was sent."""
    headers: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        headers.append(dict(request.headers))
        return web.json_response({"kind": "List", "items": LISTED})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", headers
    await runner.cleanup()


@pytest.fixture
async def login(
    asked: tuple[str, list[dict[str, str]]], tmp_path: Path
) -> AsyncIterator[kopf.AiohttpSession]:
    """A session, and a store that knows one of the builds as running."""
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": asked[0]}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    store = Store(BUILDS, lambda _: None)
    store.see(a_body(uid="known", name="known"))
    made = await session(
        await load_access(str(path)),
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
