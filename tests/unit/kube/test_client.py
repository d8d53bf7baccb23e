"""The requests of a build, against a real HTTP server that stands for the API server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from imagewright.kube.client import AT_ONCE, KubeClient, Silence, seconds_of, translate
from imagewright.ports import Conflict, Error, Fenced, Gone, Rejected, Unavailable
from tests.support.fake_api import Answering, Server, served

BUILDS = "/apis/imagewright.dev/v1alpha1/imagebuilds"
ONE = "/apis/imagewright.dev/v1alpha1/namespaces/team/imagebuilds/one"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server on a port of its own."""
    async with served(Server()) as server:
        yield server


@pytest.fixture
async def client(server: Server, tmp_path: Path) -> AsyncIterator[KubeClient]:
    """A client of that server."""
    async with KubeClient(str(server.config(tmp_path, "first"))) as client:
        yield client


async def test_a_list_is_read_to_its_last_page(server: Server, client: KubeClient) -> None:
    server.answers = [
        (200, {"metadata": {"continue": "next"}, "items": [{"n": 1}, {"n": 2}]}),
        (200, {"metadata": {}, "items": [{"n": 3}]}),
    ]
    assert [body["n"] async for body in client.list_objects()] == [1, 2, 3]
    assert [asked["line"] for asked in server.asked] == [
        f"GET {BUILDS}?limit=100",
        f"GET {BUILDS}?limit=100&continue=next",
    ]


async def test_each_namespace_is_listed_by_itself(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, {"metadata": {}, "items": []})] * 2
    async with KubeClient(str(server.config(tmp_path, "t")), ("a", "b")) as client:
        assert [body async for body in client.list_objects()] == []
    prefix = BUILDS.removesuffix("/imagebuilds")
    assert [asked["line"].partition("?")[0] for asked in server.asked] == [
        f"GET {prefix}/namespaces/a/imagebuilds",
        f"GET {prefix}/namespaces/b/imagebuilds",
    ]


async def test_a_write_is_a_merge_patch_of_the_status_with_its_condition(
    server: Server, client: KubeClient
) -> None:
    server.answers = [(200, {"kind": "ImageBuild"})]
    patch = {"metadata": {"resourceVersion": "7"}, "status": {"phase": "Running", "claim": None}}
    assert await client.patch_status("team", "one", patch) == {"kind": "ImageBuild"}
    assert server.asked == [
        {
            "line": f"PATCH {ONE}/status",
            "kind": "application/merge-patch+json",
            "wanted": "*/*",
            "who": "Bearer first",
        }
    ]
    assert server.bodies == [patch]


@pytest.mark.row("F63")
async def test_a_delete_means_this_very_object(server: Server, client: KubeClient) -> None:
    server.answers = [(200, {})]
    await client.delete_object("team", "one", "uid-1")
    assert server.asked[0]["line"] == f"DELETE {ONE}"
    assert server.bodies == [{"preconditions": {"uid": "uid-1"}}]


@pytest.mark.row("F26")
@pytest.mark.parametrize("status", [404, 409], ids=["gone already", "a namesake stands there"])
async def test_a_delete_of_what_is_not_there_is_fine(
    server: Server, client: KubeClient, status: int
) -> None:
    server.answers = [(status, {"message": "no", "details": {"name": "one"}})]
    await client.delete_object("team", "one", "uid-1")
    assert server.answers == []


@pytest.mark.row("F23")
@pytest.mark.row("F26")
@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, Gone), (409, Conflict), (403, Unavailable), (422, Rejected), (503, Unavailable)],
    ids=[
        "an object that is gone",
        "a conflict",
        "a role that was taken away",
        "a body that is refused",
        "a server that is overrun",
    ],
)
async def test_a_write_that_fails_says_what_it_means(
    server: Server, client: KubeClient, status: int, kind: type[Error]
) -> None:
    told = {"message": "the server's own words", "details": {"name": "one"}}
    server.answers = [(status, told)]
    with pytest.raises(Error) as caught:
        await client.patch_status("team", "one", {"status": {}})
    assert type(caught.value) is kind
    assert "the server's own words" in caught.value.message


async def test_an_expired_credential_is_read_again_once(
    server: Server, client: KubeClient, tmp_path: Path
) -> None:
    server.config(tmp_path, "second")
    server.answers = [(401, {}), (200, {"kind": "ImageBuild"}), (401, {}), (401, {})]
    await client.get_object("team", "one")
    assert [asked["who"] for asked in server.asked] == ["Bearer first", "Bearer second"]
    with pytest.raises(Unavailable):
        await client.get_object("team", "one")
    assert server.answers == []


async def test_nobody_there_is_an_outage(server: Server, tmp_path: Path) -> None:
    config = server.config(tmp_path, "t")
    config.write_text(config.read_text().replace(str(server.port), "9"))
    async with KubeClient(str(config)) as client:
        with pytest.raises(Unavailable, match="did not answer GET"):
            await client.get_object("team", "one")


def test_a_request_that_has_its_time_is_not_sent_before_and_others_are() -> None:
    silence = Silence()
    silence.keep("PATCH /a", 60.0)
    with pytest.raises(Unavailable, match="and no sooner") as caught:
        silence.check("PATCH /a")
    assert 59.0 < caught.value.after <= 60.0
    silence.check("GET /a")
    silence.keep("PATCH /b", -1.0)
    silence.check("PATCH /b")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("5", 5.0), (None, 0.0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("-3", 0.0), ("", 0.0)],
    ids=["seconds", "nothing", "a date, which the API server never sends", "less than none", "no"],
)
def test_when_a_server_wants_to_be_asked_again(value: str | None, seconds: float) -> None:
    assert seconds_of(value) == seconds


@pytest.mark.parametrize(
    "content",
    [
        b"404 page not found",
        b"{}",
        b'{"details": {}}',
        b'{"details": {"group": "g", "kind": "k"}}',
    ],
)
def test_a_kind_that_is_not_served_does_not_mean_that_its_objects_are_gone(content: bytes) -> None:
    assert type(translate(404, "GET /x", content)) is Unavailable


@pytest.mark.parametrize("status", range(400, 600))
def test_no_status_is_without_a_meaning(status: int) -> None:
    error = translate(status, "GET /x", b'{"details": {"name": "x"}}')
    expected: type[Error] = Rejected
    if status >= 500 or status in (401, 403, 408, 429):
        expected = Unavailable
    elif status in (404, 409):
        expected = {404: Gone, 409: Conflict}[status]
    assert type(error) is expected


class Fence:
    """Lets so many questions through."""

    def __init__(self, passes: int) -> None:
        self.left, self.asked = passes, 0

    def __call__(self) -> None:
        self.asked += 1
        if self.asked > self.left:
            raise Fenced("It leads no more.")


WRITES: dict[str, Callable[[KubeClient], Awaitable[object]]] = {
    "a status": lambda client: client.patch_status("team", "one", {"status": {}}),
    "a delete": lambda client: client.delete_object("team", "one", "uid-1"),
    "a scale or an annotation": lambda client: client.patch("/api/v1/pods/p", {}),
    "a new object": lambda client: client.create("/api/v1/pods", {}),
}


@pytest.mark.row("F51")
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_no_write_leaves_who_does_not_lead(
    server: Server, tmp_path: Path, write: Callable[[KubeClient], Awaitable[object]]
) -> None:
    server.answers = [(200, {"kind": "Thing"})]
    async with KubeClient(str(server.config(tmp_path, "t")), fence=Fence(0)) as client:
        with pytest.raises(Fenced):
            await write(client)
        assert server.asked == []
        assert await client.get("/api/v1/pods/p") == {"kind": "Thing"}


@pytest.mark.row("F51")
async def test_an_answer_that_came_when_the_lead_was_over_is_acted_on_by_nobody(
    server: Server, tmp_path: Path
) -> None:
    server.answers = [(200, {"kind": "ImageBuild"})]
    async with KubeClient(str(server.config(tmp_path, "t")), fence=Fence(1)) as client:
        with pytest.raises(Fenced):
            await client.patch_status("team", "one", {"status": {}})
    assert len(server.asked) == 1


async def test_a_write_after_an_expired_credential_is_asked_for_again(
    server: Server, tmp_path: Path
) -> None:
    server.answers = [(401, {}), (200, {"kind": "ImageBuild"})]
    async with KubeClient(str(server.config(tmp_path, "t")), fence=Fence(2)) as client:
        with pytest.raises(Fenced):
            await client.patch_status("team", "one", {"status": {}})
    assert len(server.answers) == 1


@pytest.mark.row("F40")
async def test_a_version_is_asked_for_without_the_content(
    server: Server, client: KubeClient
) -> None:
    server.answers = [
        (200, {"kind": "PartialObjectMetadata", "metadata": {"resourceVersion": "7"}}),
        (404, {"message": "it is not there", "details": {"name": "npm"}}),
        (404, {"message": "the server could not find the requested resource"}),
    ]
    path = "/api/v1/namespaces/team/secrets/npm"
    assert await client.version(path) == "7"
    assert server.asked[0]["line"] == f"GET {path}"
    assert server.asked[0]["wanted"].startswith("application/json;as=PartialObjectMetadata;")
    assert await client.version(path) == ""
    # A server that has just started does not serve its kinds yet: that is no missing Secret.
    with pytest.raises(Unavailable):
        await client.version(path)


async def test_a_new_object_is_posted(server: Server, client: KubeClient) -> None:
    server.answers = [(201, {"kind": "Lease"}), (409, {"message": "it exists"})]
    path = "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
    assert await client.create(path, {"spec": {}}) == {"kind": "Lease"}
    assert server.asked[0]["line"] == f"POST {path}"
    assert server.asked[0]["kind"] == "application/json"
    with pytest.raises(Conflict):
        await client.create(path, {"spec": {}})


class Slow(Answering):
    """Answers a watch with nothing, and all others only when it is told to."""

    def __init__(self) -> None:
        self.arrived, self.go = asyncio.Semaphore(0), asyncio.Event()
        self.connections: set[str] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return web.Response()
        assert request.transport is not None
        self.connections.add(str(request.transport.get_extra_info("peername")))
        self.arrived.release()
        await self.go.wait()
        return web.json_response({})


async def test_a_crowd_has_few_connections_and_a_watch_its_own(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(30),
        served(Slow()) as server,
        KubeClient(str(server.config(tmp_path, "t"))) as client,
    ):
        asked = [asyncio.create_task(client.get(BUILDS)) for _ in range(4 * AT_ONCE)]
        for _ in range(AT_ONCE):
            await server.arrived.acquire()
        # Each needs longer than the others would need to come.
        for _ in range(4):
            assert [event async for event in client.watch(BUILDS, {})] == []
        server.go.set()
        assert await asyncio.gather(*asked) == [{}] * 4 * AT_ONCE

    assert len(server.connections) == AT_ONCE
