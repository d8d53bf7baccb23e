"""The client against an engine that answers oddly."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import pytest

from imagewright.clients.engine.auth import FOR_BUILD, FOR_PUSH, Login
from imagewright.clients.engine.build import Build, Result
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import (
    EngineError,
    NoResult,
    Refused,
    StreamError,
    Unreachable,
    Unsupported,
)
from imagewright.clients.engine.prune import Prune, Pruned
from imagewright.clients.engine.stream import Output
from tests.support.fake_engine import FOREVER, FakeEngine, Reply

DIGEST = "sha256:" + "a" * 64
BUILT = Reply([b'{"stream":"hi\\n"}\r\n', b'{"aux":{"ID":"sha256:1"}}\r\n'])
LARGE = b"x" * (1 << 20)


class Context:
    """A context that knows whether it was closed."""

    def __init__(self, *chunks: bytes | Exception, endless: bool = False) -> None:
        self._chunks = chunks
        self._endless = endless
        self.closed = asyncio.Event()

    async def stream(self) -> AsyncIterator[bytes]:
        """The chunks; an error is raised at its place."""
        try:
            for chunk in self._chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
            if self._endless:
                await asyncio.Event().wait()
        finally:
            self.closed.set()


async def test_a_version_is_agreed_on_once() -> None:
    async with FakeEngine(info=Reply([b"{}"])) as fake:
        engine = Engine(fake.address)
        await asyncio.gather(*(engine.info() for _ in range(3)))
        await engine.close()

    assert sorted(asked.path for asked in fake.asked) == ["/_ping", *["/v1.51/info"] * 3]


async def test_after_an_error_a_version_is_agreed_on_again() -> None:
    async with FakeEngine(info=Reply([b"client version 1.51 is too new"], 400)) as fake:
        engine = Engine(fake.address)
        with pytest.raises(Refused):
            await engine.info()
        fake.replies["info"] = Reply([b"{}"])
        fake.replies["_ping"] = Reply(headers={"Api-Version": "1.41"})
        await engine.info()
        await engine.close()

    assert fake.last.path == "/v1.41/info"


async def test_a_build_is_sent_whole() -> None:
    heard: list[str] = []
    build = Build(tags=("a:1",), registries={"r.test": Login("me", "s3cret")})
    async with FakeEngine(build=BUILT) as fake:
        engine = Engine(fake.address)
        context = Context(b"one", LARGE, b"two")
        result = await engine.run(build, context.stream(), heard.append)
        await engine.close()

    assert result == Result("sha256:1")
    assert heard == ["hi\n"]
    assert fake.last.whole
    assert fake.last.body == b"one" + LARGE + b"two"
    assert fake.last.query["t"] == ["a:1"]
    assert fake.last.headers["content-type"] == "application/x-tar"
    assert fake.last.headers[FOR_BUILD.lower()]
    assert context.closed.is_set()


@pytest.mark.row("R10", "B57")
async def test_no_body_goes_with_a_remote_context() -> None:
    async with FakeEngine(build=BUILT) as fake:
        engine = Engine(fake.address)
        await engine.run(Build(remote="http://c.test/a.tar"))
        await engine.close()

    assert fake.last.headers["content-length"] == "0"
    assert fake.last.body == b""


async def test_a_build_has_one_context() -> None:
    engine = Engine("unix:///nowhere")
    with pytest.raises(ValueError, match="and not both"):
        await engine.run(Build(remote="http://c.test/a.tar"), Context().stream())
    with pytest.raises(ValueError, match="and not both"):
        await engine.run(Build())


async def test_what_an_engine_would_overlook_is_not_sent() -> None:
    async with FakeEngine(_ping=Reply(headers={"Api-Version": "1.41"})) as fake:
        engine = Engine(fake.address)
        with pytest.raises(Unsupported):
            await engine.run(Build(version=2, shm_size=1), Context().stream())
        with pytest.raises(Unsupported):
            await engine.prune(Prune(max_used_space=1))
        await engine.close()

    assert {asked.path for asked in fake.asked} == {"/_ping"}


@pytest.mark.row("B45")
@pytest.mark.parametrize("early", [False, True])
async def test_a_refusal_has_a_status(early: bool) -> None:
    reply = Reply([b'{"message":"invalid reference format"}'], 500, early=early)
    async with FakeEngine(build=reply) as fake:
        engine = Engine(fake.address)
        context = Context(LARGE, endless=early)
        with pytest.raises(Refused, match=r"^invalid reference format$") as caught:
            await engine.run(Build(), context.stream())
        await engine.close()

    assert caught.value.status == 500
    assert context.closed.is_set()


@pytest.mark.row("B44")
async def test_a_failure_after_output_is_in_the_stream() -> None:
    error = b'{"errorDetail":{"code":7,"message":"returned 7"},"error":"returned 7"}\r\n'
    async with FakeEngine(build=Reply([b'{"stream":"a"}\r\n', error])) as fake:
        engine = Engine(fake.address)
        found = engine.build(Build(), Context().stream())
        assert await anext(found) == Output("a")
        with pytest.raises(StreamError) as caught:
            await anext(found)
        await engine.close()

    assert caught.value.code == 7


async def test_an_empty_answer_is_no_success() -> None:
    async with FakeEngine(build=Reply()) as fake:
        engine = Engine(fake.address)
        with pytest.raises(NoResult):
            await engine.run(Build(), Context().stream())
        await engine.close()


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply([b'{"stream":"a"}\r\n'], cut=True), id="between two objects"),
        pytest.param(Reply([b'{"stre'], cut=True), id="inside of an object"),
        pytest.param(Reply([b'{"stre']), id="inside of one, as if that were all"),
        pytest.param(Reply(cut=True), id="before the first"),
    ],
)
async def test_a_stream_that_breaks_off_is_no_success(reply: Reply) -> None:
    async with FakeEngine(build=reply) as fake:
        engine = Engine(fake.address)
        with pytest.raises(Unreachable):
            await engine.run(Build(), Context().stream())
        await engine.close()


async def test_a_context_that_fails_breaks_the_request_off() -> None:
    async with FakeEngine(build=BUILT) as fake:
        engine = Engine(fake.address)
        with pytest.raises(PermissionError, match="unreadable"):
            await engine.run(Build(), Context(LARGE, PermissionError("unreadable")).stream())
        await engine.close()

    assert not fake.last.whole


async def test_it_does_so_even_once_the_answer_has_begun() -> None:
    """From 29.5 on an engine answers while it reads."""
    failing = asyncio.Event()

    async def context() -> AsyncIterator[bytes]:
        yield b"x"
        await failing.wait()
        raise LookupError("gone")

    reply = Reply([b'{"stream":"a"}\r\n', FOREVER], early=True)
    async with FakeEngine(build=reply) as fake:
        engine = Engine(fake.address)
        async with aclosing(engine.build(Build(), context())) as found:
            assert await anext(found) == Output("a")
            failing.set()
            with pytest.raises(LookupError, match="gone"):
                await anext(found)
        await engine.close()


async def _closed(engine: Engine, context: Context) -> None:
    async with aclosing(engine.build(Build(), context.stream())) as found:
        await anext(found)


async def _cancelled(engine: Engine, context: Context) -> None:
    seen = asyncio.Event()
    task = asyncio.create_task(engine.run(Build(), context.stream(), lambda _: seen.set()))
    await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _shut(engine: Engine, context: Context) -> None:
    seen = asyncio.Event()
    task = asyncio.create_task(engine.run(Build(), context.stream(), lambda _: seen.set()))
    await seen.wait()
    await engine.close()
    with pytest.raises(Unreachable):
        await task


@pytest.mark.parametrize("end", [_closed, _cancelled, _shut])
async def test_a_build_that_is_left_closes_its_connection(
    end: Callable[[Engine, Context], Awaitable[None]],
) -> None:
    async with FakeEngine(build=Reply([b'{"stream":"a"}\r\n', FOREVER], early=True)) as fake:
        engine = Engine(fake.address)
        context = Context(b"x", endless=True)
        await end(engine, context)
        await fake.gone.wait()
        await engine.close()

    assert context.closed.is_set()


async def test_a_build_that_is_cancelled_while_it_sends_does_not_end_its_body() -> None:
    async with FakeEngine(build=BUILT) as fake:
        engine = Engine(fake.address)
        context = Context(b"x", endless=True)
        task = asyncio.create_task(engine.run(Build(), context.stream()))
        await fake.heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await engine.close()

    assert context.closed.is_set()
    assert not fake.last.whole


async def test_nobody_there_is_unreachable() -> None:
    engine = Engine("unix:///nowhere/engine.sock")
    with pytest.raises(Unreachable, match=r"/nowhere/engine\.sock"):
        await engine.ping()
    await engine.close()


@pytest.mark.row("I2")
@pytest.mark.parametrize("status", [200, 202, 301])
async def test_only_201_is_a_name_given(status: int) -> None:
    async with FakeEngine(tag=Reply(status=201)) as fake:
        engine = Engine(fake.address)
        await engine.tag("sha256:1", "r.test/a", "1")
        assert fake.last.query == {"repo": ["r.test/a"], "tag": ["1"]}
        fake.replies["tag"] = Reply(status=status)
        with pytest.raises(Refused) as caught:
            await engine.tag("sha256:1", "r.test/a", "1")
        await engine.close()

    assert caught.value.status == status


async def test_names_are_complete() -> None:
    engine = Engine("unix:///nowhere")
    for repository, tag in [("", "1"), ("a", "")]:
        with pytest.raises(ValueError, match="a repository and a tag"):
            await engine.tag("sha256:1", repository, tag)
        with pytest.raises(ValueError, match="a repository and a tag"):
            await engine.push(repository, tag)
    with pytest.raises(ValueError, match="has no digest"):
        await engine.tag("sha256:1", f"a@{DIGEST}", "1")
    with pytest.raises(ValueError, match="without an id"):
        await engine.cancel("")
    with pytest.raises(ValueError, match="needs a name"):
        await engine.inspect("")


async def test_a_name_stays_inside_of_its_path() -> None:
    async with FakeEngine(json=Reply([b'{"Id":"x"}'])) as fake:
        engine = Engine(fake.address)
        await engine.inspect("r.test:5000/a?b=c#d%2f:1")
        await engine.close()

    assert fake.last.path == "/v1.51/images/r.test:5000/a%3Fb%3Dc%23d%252f:1/json"
    assert fake.last.query == {}


@pytest.mark.row("I5")
@pytest.mark.parametrize("auth", [None, Login("me", "s3cret")])
async def test_a_push_always_shows_who_we_are(auth: Login | None) -> None:
    line = json.dumps({"status": f"1: digest: {DIGEST} size: 1"}).encode()
    async with FakeEngine(push=Reply([line])) as fake:
        engine = Engine(fake.address)
        digest = await engine.push("r.test/a", "1", auth)
        await engine.close()

    assert digest == DIGEST
    assert fake.last.path == "/v1.51/images/r.test/a/push"
    assert fake.last.query == {"tag": ["1"]}
    assert fake.last.headers[FOR_PUSH.lower()]


async def test_prune_usage_and_cancel() -> None:
    async with FakeEngine(
        prune=Reply([b'{"CachesDeleted":null,"SpaceReclaimed":0}']),
        df=Reply([b'{"BuildCache":null}']),
        cancel=Reply(),
    ) as fake:
        engine = Engine(fake.address)
        assert await engine.prune(Prune(all=True)) == Pruned()
        assert await engine.disk_usage() == ()
        await engine.cancel("b")
        await engine.close()

    assert fake.last.query == {"id": ["b"]}


async def test_events_come_until_they_are_left() -> None:
    events = [b'{"Type":"builder","Action":"prune"}\n', b'{"Type":"image"}\n', FOREVER]
    async with FakeEngine(events=Reply(events)) as fake:
        engine = Engine(fake.address)
        async with aclosing(engine.events({"type": ["builder", "image"]})) as found:
            assert (await anext(found))["Action"] == "prune"
            assert (await anext(found))["Type"] == "image"
        await fake.gone.wait()
        await engine.close()

    assert json.loads(fake.last.query["filters"][0]) == {"type": ["builder", "image"]}


@pytest.mark.parametrize("body", [b"<html>", b""])
async def test_an_answer_that_is_no_json(body: bytes) -> None:
    async with FakeEngine(info=Reply([body] if body else [])) as fake:
        engine = Engine(fake.address)
        with pytest.raises(EngineError, match="no JSON"):
            await engine.info()
        await engine.close()


async def test_no_secret_is_in_an_error() -> None:
    build = Build(build_args={"TOKEN": "s3cret"})
    async with FakeEngine(build=Reply(cut=True, early=True, pieces=[b"{"])) as fake:
        engine = Engine(fake.address)
        with pytest.raises(Unreachable) as caught:
            await engine.run(build, Context(*[LARGE] * 20).stream())
        await engine.close()

    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
