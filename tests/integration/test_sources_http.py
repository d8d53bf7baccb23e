"""Downloads as contexts: what servers answer, where credentials go, and how much is taken."""

import asyncio
import base64
import gzip
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from devstack.webserver import pack
from imagewright.api.reason import Reason
from imagewright.caches.sources import Limits, SourceCache
from imagewright.domain.credential import Login
from imagewright.domain.plan import Http
from imagewright.ports import Error, Failed, Missing, Rejected, Unavailable
from imagewright.sources.archive import Caps
from imagewright.sources.egress import Egress
from imagewright.sources.fetch import SourceFetcher
from imagewright.sources.git import GitFetcher
from imagewright.sources.http import HttpFetcher

HERE = Egress(allow_loopback=True)
FILES = {"Dockerfile": "FROM scratch\n", "app/main": "one\n"}
ARCHIVE = pack(FILES)
SECRETS = {
    "basic": {"username": b"me", "password": b"word"},
    "bearer": {"token": b"tok"},
    "key": {"ssh-privatekey": b"x"},
}
BASIC = "Basic " + base64.b64encode(b"me:word").decode()


class Held:
    """A keyring with SECRETS."""

    async def secret(self, name: str) -> Mapping[str, bytes]:
        if name not in SECRETS:
            raise Missing(f"The Secret {name} is not there yet.")
        return SECRETS[name]

    async def config(self, name: str) -> Mapping[str, bytes]:
        raise Missing(name)

    async def login(self, host: str) -> Login | None:
        return None

    async def logins(self) -> Mapping[str, Login]:
        return {}

    def masks(self) -> frozenset[str]:
        return frozenset()


@dataclass
class Server:
    """A web server; `asked` are the paths and Authorization headers that came."""

    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    wanted: str = ""
    streaming: asyncio.Event = field(default_factory=asyncio.Event)
    other: str = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer as the path says."""
        given = request.headers.get("Authorization", "")
        self.asked.append((request.path, given))
        if request.path.startswith("/private") and given != self.wanted:
            return web.Response(status=401)
        kind = request.path.removeprefix("/private").strip("/").split("/")
        if kind[0] == "status":
            return web.Response(status=int(kind[1]))
        if kind[0] == "to":
            target = {"loop": request.path, "other": f"{self.other}/a.tar.gz"}
            raise web.HTTPFound(target.get(kind[1], "/" + "/".join(kind[1:])))
        if kind[0] == "page":
            return web.Response(text="<!DOCTYPE html><html>", content_type=kind[1] + "/html")
        if kind[0] == "endless":
            return await self._endless(request)
        if kind[0] == "cut":
            return await self._cut(request)
        return web.Response(body=BODIES[kind[0]])

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        self.streaming.set()
        while True:
            await response.write(bytes(1 << 16))

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(ARCHIVE))})
        await response.prepare(request)
        await response.write(ARCHIVE[:20])
        assert request.transport is not None
        request.transport.close()
        return response


BODIES = {
    "a.tar.gz": ARCHIVE,
    "a.tar": pack(FILES, "w:"),
    "a.tar.xz": pack(FILES, "w:xz"),
    "a.tar.bz2": pack(FILES, "w:bz2"),
    "Dockerfile": b"FROM scratch\n",
    "hidden": b"<html><body>login</body></html>",
    "zip": b"PK\x03\x04" + bytes(100),
    "empty": b"",
    "text.gz": gzip.compress(b"FROM scratch\n" * 100),
}


@pytest.fixture
async def start() -> AsyncIterator[Callable[[], Awaitable[Server]]]:
    runners = []

    async def start() -> Server:
        server = Server()
        app = web.Application()
        app.router.add_get("/{path:.*}", server.serve)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return server

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def server(start: Callable[[], Awaitable[Server]]) -> Server:
    return await start()


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[SourceCache]:
    async with SourceCache(tmp_path / "cache", Limits()) as cache:
        yield cache


def fetcher(cache: SourceCache, caps: Caps | None = None) -> SourceFetcher:
    return SourceFetcher(cache, GitFetcher(HERE), HttpFetcher(HERE, caps or Caps()))


async def files(sources: SourceFetcher, source: Http) -> dict[str, str]:
    """All files of a source, by their paths."""
    async with sources.tree(source, Held()) as tree:
        return {
            str(path.relative_to(tree.path)): path.read_text()
            for path in tree.path.rglob("*")
            if path.is_file()
        }


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2", "to/a.tar"])
async def test_an_archive_is_a_context(cache: SourceCache, server: Server, name: str) -> None:
    assert await files(fetcher(cache), Http(f"{server.url}/{name}")) == FILES


async def test_a_bare_dockerfile_is_a_context(cache: SourceCache, server: Server) -> None:
    found = await files(fetcher(cache), Http(f"{server.url}/Dockerfile"))
    assert found == {"Dockerfile": "FROM scratch\n"}


@pytest.mark.row("seed-5")
async def test_a_known_digest_is_asked_for_once(cache: SourceCache, server: Server) -> None:
    source = Http(f"{server.url}/a.tar.gz", hashlib.sha256(ARCHIVE).hexdigest())
    assert await files(fetcher(cache), source) == FILES
    assert await files(fetcher(cache), source) == FILES
    assert len(server.asked) == 1
    assert await files(fetcher(cache), Http(source.url)) == FILES
    assert len(await _ids(cache)) == 1, "equal content is kept once"


async def _ids(cache: SourceCache) -> list[str]:
    return list(cache._entries)


@pytest.mark.parametrize(
    ("path", "error", "reason", "said"),
    [
        ("status/404", Failed, Reason.SOURCE_UNAVAILABLE, "is not there"),
        ("status/410", Failed, Reason.SOURCE_UNAVAILABLE, "is not there"),
        ("status/401", Failed, Reason.SOURCE_UNAVAILABLE, "name a Secret"),
        ("status/403", Failed, Reason.SOURCE_UNAVAILABLE, "name a Secret"),
        ("status/500", Unavailable, Reason.SOURCE_UNAVAILABLE, "fails now"),
        ("status/429", Unavailable, Reason.SOURCE_UNAVAILABLE, "fails now"),
        ("cut", Unavailable, Reason.SOURCE_UNAVAILABLE, "cannot be fetched now"),
        ("to/loop", Failed, Reason.SOURCE_UNAVAILABLE, "redirects more than 5 times"),
        ("page/text", Failed, Reason.SOURCE_UNAVAILABLE, "answers with a web page"),
        ("hidden", Failed, Reason.SOURCE_UNAVAILABLE, "holds a web page"),
        ("zip", Failed, Reason.SOURCE_UNAVAILABLE, "neither an archive nor a Dockerfile"),
        ("empty", Failed, Reason.SOURCE_UNAVAILABLE, "neither an archive nor a Dockerfile"),
        ("text.gz", Failed, Reason.SOURCE_UNAVAILABLE, "The archive is broken"),
    ],
)
async def test_an_answer_that_is_no_context_is_told(
    cache: SourceCache, server: Server, path: str, error: type[Error], reason: Reason, said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        await files(fetcher(cache), Http(f"{server.url}/{path}?signature=abc"))
    assert caught.value.reason == reason
    assert "signature" not in caught.value.message
    assert await cache.usage() == 0


async def test_another_digest_is_refused(cache: SourceCache, server: Server) -> None:
    with pytest.raises(Failed, match="it is not the file that was meant"):
        await files(fetcher(cache), Http(f"{server.url}/a.tar.gz", "0" * 64))
    assert await cache.usage() == 0


@pytest.mark.row("S8")
async def test_a_body_that_never_ends_meets_a_bound(cache: SourceCache, server: Server) -> None:
    with pytest.raises(Failed, match="holds more than 1 MiB"):
        await files(fetcher(cache, Caps(wire=1 << 20)), Http(f"{server.url}/endless"))


async def test_a_cancelled_download_leaves_nothing(
    cache: SourceCache, server: Server, tmp_path: Path
) -> None:
    task = asyncio.create_task(files(fetcher(cache), Http(f"{server.url}/endless")))
    await server.streaming.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((tmp_path / "cache" / "temp").iterdir()) == []


@pytest.mark.parametrize(("secret", "header"), [("basic", BASIC), ("bearer", "Bearer tok")])
async def test_a_secret_opens_the_url(
    cache: SourceCache, server: Server, secret: str, header: str
) -> None:
    server.wanted = header
    source = Http(f"{server.url}/private/a.tar.gz", secret=secret)
    assert await files(fetcher(cache), source) == FILES


async def test_who_lost_his_access_gets_nothing_from_the_cache(
    cache: SourceCache, server: Server
) -> None:
    server.wanted = BASIC
    digest = hashlib.sha256(ARCHIVE).hexdigest()
    source = Http(f"{server.url}/private/a.tar.gz", digest, "basic")
    assert await files(fetcher(cache), source) == FILES
    server.wanted = "another"
    with pytest.raises(Rejected, match="does not accept what the Secret basic") as caught:
        await files(fetcher(cache), source)
    assert caught.value.reason == Reason.INVALID_CREDENTIALS
    with pytest.raises(Failed, match="name a Secret"):
        await files(fetcher(cache), Http(source.url, digest))


async def test_a_key_for_ssh_opens_no_url(cache: SourceCache, server: Server) -> None:
    with pytest.raises(Rejected, match="opens no URL"):
        await files(fetcher(cache), Http(f"{server.url}/a.tar.gz", secret="key"))


@pytest.mark.row("S17")
async def test_a_redirect_to_another_server_takes_no_credential(
    cache: SourceCache, server: Server, start: Callable[[], Awaitable[Server]]
) -> None:
    other = await start()
    server.wanted, server.other = BASIC, other.url
    source = Http(f"{server.url}/private/to/other", secret="basic")
    assert await files(fetcher(cache), source) == FILES
    assert other.asked == [("/a.tar.gz", "")]


@pytest.mark.row("S1")
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",  # noqa: S104  # it is not listened on
        "169.254.169.254",
        "[fe80::1]",
        "metadata.google.internal",
        "[64:ff9b::a9fe:a9fe]",
    ],
)
async def test_a_url_inside_is_refused(cache: SourceCache, server: Server, host: str) -> None:
    port = server.url.rpartition(":")[2]
    with pytest.raises(Rejected, match="may not be fetched from"):
        await files(SourceFetcher(cache), Http(f"http://{host}:{port}/a.tar.gz"))
    assert server.asked == []


@pytest.mark.row("S1")
async def test_a_redirect_inside_is_refused(cache: SourceCache, server: Server) -> None:
    server.other = "http://169.254.169.254"
    with pytest.raises(Rejected, match=r"169\.254\.169\.254, where sources may not"):
        await files(fetcher(cache), Http(f"{server.url}/to/other"))
