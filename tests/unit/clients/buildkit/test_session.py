"""A session, over a pipe that is no gRPC call, with a daemon that is none."""

import asyncio
import contextlib
from collections.abc import Mapping

import grpc
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from hypothesis import given
from hypothesis import strategies as st

from imagewright.clients.buildkit.calls import Handler, Stream
from imagewright.clients.buildkit.errors import BuildKitError, Unreachable, Unsupported
from imagewright.clients.buildkit.session import HEALTH, Metadata, Session, SessionLost
from imagewright.clients.buildkit.wire import WireError, bytes_message, parse_bytes_message
from tests.support.grpc_go import Answer, GrpcGo, in_time

EOF = object()
"""Like grpc.aio's, it is nothing but not bytes."""


class FakePipe:
    """The call that carries a session, with the daemon on its far end."""

    def __init__(self) -> None:
        self.metadata: list[tuple[str, str]] = []
        self.incoming: asyncio.Queue[object] = asyncio.Queue()
        self.heard = asyncio.Event()
        self.cancelled = False
        self.refuses: Exception | None = None
        self.daemon = GrpcGo(self.say)
        self._writing = False

    def open(self, metadata: Metadata) -> "FakePipe":
        self.metadata = list(metadata)
        return self

    def say(self, spoken: bytes | bytearray) -> None:
        self.incoming.put_nowait(bytes_message(bytes(spoken)))

    async def read(self) -> object:
        found = await self.incoming.get()
        if isinstance(found, BaseException):
            raise found
        return found

    async def write(self, message: bytes, /) -> None:
        assert not self._writing, "grpc.aio takes one message at a time."
        self._writing = True
        await asyncio.sleep(0)
        self._writing = False
        if self.refuses:
            raise self.refuses
        self.daemon.hear(parse_bytes_message(message))
        self.heard.set()

    def cancel(self) -> bool:
        self.cancelled = True
        return True

    async def ended(self, number: int) -> Answer:
        while not self.daemon.answer(number).ended:
            self.heard.clear()
            await in_time(self.heard.wait())
        return self.daemon.answer(number)


def session(pipe: FakePipe, handlers: Mapping[str, Handler] | None = None) -> Session:
    return Session(pipe.open, handlers or {})


async def for_ever() -> None:
    await in_time(asyncio.Event().wait())


async def live(pipe: FakePipe, *said: object) -> None:
    """A whole session: this is said in it, and its body waits for ever."""
    async with session(pipe):
        for one in said:
            pipe.incoming.put_nowait(one)
        await for_ever()


def others() -> set[str]:
    """The names of all tasks but ours."""
    return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def test_the_daemon_is_told_who_calls_and_every_method_that_is_served() -> None:
    async def handler(_: Stream) -> None: ...

    pipe = FakePipe()
    async with Session(pipe.open, {"/a.B/C": handler, "/a.B/D": handler}, "key") as opened:
        pass

    assert pipe.metadata == [
        ("x-docker-expose-session-uuid", opened.id),
        ("x-docker-expose-session-sharedkey", "key"),
        ("x-docker-expose-session-grpc-method", HEALTH),
        ("x-docker-expose-session-grpc-method", "/a.B/C"),
        ("x-docker-expose-session-grpc-method", "/a.B/D"),
    ]


def test_sessions_share_neither_id_nor_key_unless_they_are_told_to() -> None:
    one, two = session(FakePipe()), session(FakePipe())

    assert one.id != two.id
    assert dict(one.metadata)["x-docker-expose-session-sharedkey"] == one.id


async def test_health_is_always_answered() -> None:
    pipe = FakePipe()
    async with session(pipe):
        pipe.daemon.greet()
        pipe.daemon.ask(1, HEALTH)
        answer = await pipe.ended(1)

    assert (answer.status, answer.messages) == (0, [b"\x08\x01"])


async def test_many_handlers_at_once_write_through_one_writer() -> None:
    async def many(stream: Stream) -> None:
        await asyncio.gather(*(stream.write(b"x" * 20_000) for _ in range(5)))

    pipe = FakePipe()
    async with session(pipe, {"/many": many}):
        pipe.daemon.greet()
        for number in (1, 3, 5, 7):
            pipe.daemon.ask(number, "/many")
        answers = [await pipe.ended(number) for number in (1, 3, 5, 7)]

    assert all(answer.messages == [b"x" * 20_000] * 5 for answer in answers)


async def test_leaving_ends_the_call_and_every_task() -> None:
    stopped = asyncio.Event()

    async def hang(stream: Stream) -> None:
        await stream.write(b"here")
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    pipe = FakePipe()
    before = others()
    async with session(pipe, {"/hang": hang}):
        pipe.daemon.greet()
        pipe.daemon.open(1, "/hang")
        while not pipe.daemon.answer(1).messages:
            pipe.heard.clear()
            await in_time(pipe.heard.wait())

    assert stopped.is_set()
    assert pipe.cancelled
    assert others() == before


async def test_leaving_at_once_is_fine() -> None:
    async with session(FakePipe()):
        pass

    assert not [name for name in others() if name.startswith("session")]


def rpc_error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


@pytest.mark.parametrize(
    ("happens", "kind", "text"),
    [
        pytest.param(EOF, SessionLost, "The daemon ended the session.", id="the daemon hangs up"),
        pytest.param(
            rpc_error(grpc.StatusCode.UNAVAILABLE, "Socket closed"),
            Unreachable,
            "Socket closed",
            id="the daemon is gone",
        ),
        pytest.param(
            rpc_error(grpc.StatusCode.UNIMPLEMENTED, "unknown service"),
            Unsupported,
            "unknown service",
            id="this is no BuildKit",
        ),
        pytest.param(
            rpc_error(grpc.StatusCode.UNKNOWN, "session is broken"),
            SessionLost,
            "session is broken",
            id="the daemon's verdict on a session is none on the build",
        ),
        pytest.param(
            bytes_message(b"HTTP/1.1 400 Bad Request"),
            SessionLost,
            "The session broke: The peer does not speak HTTP/2.",
            id="the daemon breaks HTTP/2",
        ),
        pytest.param(
            b"\x12\x01x", SessionLost, "The session broke: That is no BytesMessage.", id="nonsense"
        ),
        pytest.param(
            asyncio.CancelledError(),
            SessionLost,
            "The call that carried the session was cancelled.",
            id="the channel is closed under the session",
        ),
    ],
)
async def test_the_end_of_the_session_ends_what_needs_it(
    happens: object, kind: type[BuildKitError], text: str
) -> None:
    pipe = FakePipe()
    with pytest.raises(kind) as caught:
        await live(pipe, happens)

    assert str(caught.value) == text
    assert type(caught.value) is kind
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]
    assert not [name for name in others() if name.startswith("session")]


async def test_the_cause_of_the_loss_is_kept() -> None:
    pipe = FakePipe()
    cause = rpc_error(grpc.StatusCode.UNAVAILABLE, "gone")
    with pytest.raises(Unreachable) as caught:
        await live(pipe, cause)

    assert caught.value.__cause__ is cause


async def test_where_writing_fails_reading_tells_why() -> None:
    pipe = FakePipe()
    pipe.refuses = asyncio.InvalidStateError("RPC already finished.")

    async def body() -> None:
        async with session(pipe):
            while not pipe.cancelled:
                await asyncio.sleep(0)
            pipe.incoming.put_nowait(rpc_error(grpc.StatusCode.UNAVAILABLE, "Connection refused"))
            await for_ever()

    with pytest.raises(Unreachable, match="Connection refused"):
        await body()


async def test_an_error_of_the_body_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with session(FakePipe()):
            raise ZeroDivisionError


async def test_an_error_of_the_body_comes_out_even_when_the_session_is_lost() -> None:
    pipe = FakePipe()

    async def body() -> None:
        async with session(pipe):
            pipe.incoming.put_nowait(EOF)
            try:
                await for_ever()
            finally:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()

    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]


async def test_a_session_that_is_lost_after_its_body_is_left_is_no_failure() -> None:
    pipe = FakePipe()
    async with session(pipe):
        pipe.incoming.put_nowait(EOF)


async def test_a_cancellation_from_outside_stays_one() -> None:
    pipe = FakePipe()
    entered = asyncio.Event()

    async def build() -> None:
        async with session(pipe):
            entered.set()
            await for_ever()

    task = asyncio.create_task(build())
    await in_time(entered.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert pipe.cancelled


async def test_a_cancellation_from_outside_wins_over_the_loss() -> None:
    pipe = FakePipe()
    entered = asyncio.Event()

    async def build() -> None:
        async with session(pipe):
            entered.set()
            await for_ever()

    task = asyncio.create_task(build())
    await in_time(entered.wait())
    pipe.incoming.put_nowait(EOF)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_around_a_session_still_works() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0), session(FakePipe()):
            await for_ever()


async def test_a_deadline_inside_of_a_session_still_works() -> None:
    async with session(FakePipe()):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await for_ever()


@pytest.mark.parametrize("lost", ["outer", "inner"])
async def test_one_of_two_sessions_may_be_lost(lost: str) -> None:
    pipes = {"outer": FakePipe(), "inner": FakePipe()}
    reached = False
    with contextlib.suppress(SessionLost):
        async with session(pipes["outer"]):
            try:
                async with session(pipes["inner"]):
                    pipes[lost].incoming.put_nowait(EOF)
                    await for_ever()
            except SessionLost:
                # Only the inner session's loss is the inner session's business.
                reached = True
                await asyncio.sleep(0)

    assert reached is (lost == "inner")
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]


async def test_what_needs_a_session_may_run_in_tasks_of_its_own() -> None:
    pipe = FakePipe()

    async def body() -> None:
        async with session(pipe), asyncio.TaskGroup() as tasks:
            tasks.create_task(for_ever())
            tasks.create_task(for_ever())
            pipe.incoming.put_nowait(EOF)

    with pytest.raises(SessionLost):
        await body()

    assert not [name for name in others() if name.startswith("session")]


async def test_a_call_that_cannot_even_begin_leaves_nothing_behind() -> None:
    def refuse(_: Metadata) -> FakePipe:
        raise ConnectionError("The channel is closed.")

    before = others()
    with pytest.raises(ConnectionError):
        async with Session(refuse, {}):
            pass

    assert others() == before


@given(st.binary(max_size=300))
def test_a_message_of_bytes_is_that_of_protobuf(data: bytes) -> None:
    # BytesValue has the same shape: bytes in field 1.
    assert BytesValue.FromString(bytes_message(data)).value == data
    assert parse_bytes_message(BytesValue(value=data).SerializeToString()) == data


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x0a", id="without a length"),
        pytest.param(b"\x0a\x05abc", id="cut off"),
        pytest.param(b"\x0a\x01abc", id="with something behind it"),
        pytest.param(b"\x0a\xff\xff\xff\xff\xff\xff", id="with a length that has no end"),
        pytest.param(b"\x08\x01", id="of another type"),
    ],
)
def test_what_is_no_message_of_bytes_is_an_error(message: bytes) -> None:
    with pytest.raises(WireError):
        parse_bytes_message(message)
