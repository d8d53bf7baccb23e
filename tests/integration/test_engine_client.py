"""The way to real engines: versions, TLS, their BuildKit; and contexts that they fetch."""

import asyncio
import functools
import http.server
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from devstack import Stack
from imagewright.clients.buildkit.control import Control
from imagewright.clients.buildkit.errors import BuildKitError
from imagewright.clients.buildkit.proto import control_pb2
from imagewright.clients.buildkit.status import event_of
from imagewright.clients.engine.address import Tls
from imagewright.clients.engine.bridge import bridge
from imagewright.clients.engine.build import Build
from imagewright.clients.engine.connection import Request
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import EngineError, Refused, StreamError, Unreachable
from imagewright.clients.engine.stream import Status, Trace
from imagewright.clients.engine.upgrade import SESSION, upgrade
from imagewright.clients.engine.version import NEWEST, OLDEST, native_grpc
from tests.support.engines import built, got, pieces, posted, tar, unique

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.row("X1")
async def test_the_version_is_agreed_on_first(engine: Engine, kind: str) -> None:
    version = await engine.ping()

    assert OLDEST <= version.api <= NEWEST
    assert version.experimental
    assert (version.api == (1, 41)) is (kind == "old")
    answer = await engine.connection.answer(Request("POST", "/v1.99/build/prune"))
    assert answer.status == 400
    assert "too new" in answer.json()["message"]


@pytest.mark.row("X5")
async def test_the_kind_of_store_is_found_out(engine: Engine, kind: str) -> None:
    info = await engine.info()

    assert info.containerd_store is (kind == "containerd")
    assert info.experimental
    assert info.server_version.startswith("20.10") is (kind == "old")
    assert info.memory > 0


@pytest.mark.row("X6")
async def test_a_wrong_method_is_not_found(engine: Engine) -> None:
    answer = await got(engine, "/build")

    assert answer.status == 404
    assert "page not found" in answer.json()["message"]


@pytest.mark.row("X2")
async def test_the_bridge_leads_to_the_engines_buildkit(engine: Engine) -> None:
    async with bridge(engine.connection.address) as address:
        control = Control(address)
        assert len(await control.workers()) == 1
        await control.disk_usage()
        await control.close()


@pytest.mark.row("X2")
async def test_without_an_upgrade_there_is_none(engine: Engine) -> None:
    answer = await posted(engine, "/grpc")

    assert answer.status == 500
    assert "no upgrade proto in request" in answer.json()["message"]


@pytest.mark.row("X3")
async def test_in_a_session_the_engine_is_the_client(engine: Engine, name: str) -> None:
    headers = [("X-Docker-Expose-Session-Uuid", name), ("X-Docker-Expose-Session-Name", "test")]
    session = await upgrade(engine.connection.address, path=SESSION, headers=headers)
    async with asyncio.timeout(10):
        assert await session.reader.readexactly(len(PREFACE)) == PREFACE
        with pytest.raises(Refused, match="already exists") as caught:
            await upgrade(engine.connection.address, path=SESSION, headers=headers)
    await session.close()

    assert caught.value.status == 400


@pytest.mark.row("X4")
async def test_newer_engines_speak_grpc_on_their_socket(engine: Engine, kind: str) -> None:
    native = native_grpc(await engine.ping())
    control = Control(f"unix://{engine.connection.address.path}")
    if native:
        assert len(await control.workers()) == 1
    else:
        with pytest.raises(BuildKitError):
            await control.workers()
    await control.close()

    assert native is (kind != "old")


@pytest.mark.row("X8")
@pytest.mark.parametrize("kind", ["new", "containerd"])
async def test_a_build_of_the_http_api_is_in_buildkits_history(engine: Engine) -> None:
    lines = f"FROM scratch\n{unique()}"
    heard = await built(engine, Build(version=2), lines)
    async with bridge(engine.connection.address) as address:
        control = Control(address)
        call = control._channel.unary_stream(
            "/moby.buildkit.v1.Control/ListenBuildHistory",
            request_serializer=bytes,
            response_deserializer=bytes,
        )
        # EarlyExit = 3: the builds so far, and then the end.
        found = [message async for message in call(b"\x18\x01")]
        await control.close()

    digest = heard.result.image_id.encode()
    assert any(digest in message for message in found)


@pytest.mark.row("B54")
async def test_buildkits_trace_holds_what_steps_print(engine: Engine, base: str) -> None:
    lines = f"FROM {base}\n{unique()}RUN echo hello from the step\n"
    stream = engine.build(Build(version=2), pieces(tar({"Dockerfile": lines})))
    traces = [message.data async for message in stream if isinstance(message, Trace)]
    events = [event_of(control_pb2.StatusResponse.FromString(data)) for data in traces]

    assert b"hello from the step\n" in b"".join(log.data for event in events for log in event.logs)
    assert any("RUN echo hello" in one.name for event in events for one in event.vertexes)


async def read(path: Path) -> bytes:
    return await asyncio.to_thread(path.read_bytes)


@asynccontextmanager
async def over_tls(stack: Stack, *, certified: bool) -> AsyncIterator[Engine]:
    """A client of the engine with TLS, with or without a certificate of its own."""
    there = stack.engine("tls")
    assert there.certificates is not None
    ca = await read(there.certificates / "ca.pem")
    tls = Tls(ca)
    if certified:
        cert = await read(there.certificates / "cert.pem")
        tls = Tls(ca, cert, await read(there.certificates / "key.pem"))
    engine = Engine(there.address, tls)
    yield engine
    await engine.close()


async def test_an_engine_over_tls(stack: Stack, name: str) -> None:
    async with over_tls(stack, certified=True) as engine:
        lines = f"FROM scratch\n{unique()}COPY large /\n"
        heard = await built(engine, Build(), lines, {"large": b"x" * (4 << 20)})
        assert heard.result.image_id
        async with bridge(engine.connection.address, engine.connection.tls) as address:
            control = Control(address)
            assert len(await control.workers()) == 1
            await control.close()


async def test_an_engine_over_tls_takes_nobody_without_a_certificate(stack: Stack) -> None:
    async with over_tls(stack, certified=False) as engine:
        with pytest.raises(Unreachable):
            await engine.ping()
        with pytest.raises(Unreachable):
            await upgrade(engine.connection.address, engine.connection.tls)


async def test_an_engine_over_tls_is_not_spoken_to_in_plain_text(stack: Stack) -> None:
    engine = Engine(stack.engine("tls").address)
    with pytest.raises(EngineError, match="wants TLS"):
        await engine.ping()
    await engine.close()


FROM_WEB = {
    "Dockerfile": "FROM scratch\nLABEL f=Dockerfile\n",
    "sub/Df": "FROM scratch\nLABEL f=Df\n",
}


TYPES = {".tar": "application/x-tar", ".html": "text/html"}


class Typed(http.server.SimpleHTTPRequestHandler):
    """Says what it serves, as web servers do."""

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        return TYPES.get(Path(path).suffix, "text/plain")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's
        """Say nothing."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A server with an archive, a Dockerfile and a page."""
    (tmp_path / "a.tar").write_bytes(tar(FROM_WEB))
    # An engine tells nothing of a download of less than half a MiB.
    (tmp_path / "large.tar").write_bytes(tar({**FROM_WEB, "large": b"x" * (4 << 20)}))
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL f=bare\n")
    (tmp_path / "page.html").write_text("<!DOCTYPE html><html><body>a page</body></html>")
    handler = functools.partial(Typed, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.row("R3", "R4")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("path", "dockerfile", "label"),
    [
        pytest.param("/a.tar", "Dockerfile", "Dockerfile", id="an archive"),
        pytest.param("/a.tar", "sub/Df", "Df", id="a Dockerfile elsewhere in it"),
        pytest.param("/Dockerfile", "sub/Df", "bare", id="a bare Dockerfile"),
    ],
)
async def test_a_context_behind_a_url(
    engine: Engine, web: str, version: int, path: str, dockerfile: str, label: str
) -> None:
    build = Build(version=version, remote=web + path, dockerfile=dockerfile, no_cache=True)
    result = await engine.run(build)

    assert (await engine.inspect(result.image_id)).labels == {"f": label}


@pytest.mark.row("B53")
async def test_a_download_tells_its_progress(engine: Engine, web: str) -> None:
    stream = engine.build(Build(remote=f"{web}/large.tar"))
    said = [message async for message in stream if isinstance(message, Status)]

    assert "Downloading context" in "".join(status.id + status.text for status in said)


@pytest.mark.row("R5", "R6", "R7", "R8")
async def test_what_is_no_context_is_refused(engine: Engine, web: str) -> None:
    table = {
        f"{web}/none.tar": (404, "404"),
        f"{web}/page.html": (500, "text/html"),
        "foo": (500, "could not be recognized as URL"),
        "client-session": (400, "no longer supported"),
    }
    for remote, (status, text) in table.items():
        with pytest.raises(Refused, match=text) as caught:
            await engine.run(Build(remote=remote))
        assert caught.value.status == status

    for remote, text in ((f"{web}/none.tar", "404"), ("foo", "session")):
        with pytest.raises(StreamError, match=text):
            await engine.run(Build(version=2, remote=remote))


@pytest.mark.row("R9")
async def test_a_session_that_nobody_has_fails_in_the_end(engine: Engine, name: str) -> None:
    build = Build(version=2, remote="client-session", session=name)
    async with asyncio.timeout(60):
        with pytest.raises(EngineError, match=f"no active session for {name}"):
            await engine.run(build)
