"""The session's HTTP/2 server, against a client that talks as grpc-go does, and worse."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewright.clients.buildkit.calls import CallFailed, Code, Handler, Stream, unary
from imagewright.clients.buildkit.frames import (
    END_HEADERS,
    END_STREAM,
    PADDED,
    PREFACE,
    PRIORITIZED,
    ErrorCode,
    Kind,
    ProtocolError,
    Setting,
    frame,
    window_update,
)
from imagewright.clients.buildkit.http2 import MAX_STREAMS, Connection
from imagewright.clients.buildkit.streams import MAX_MESSAGE, WINDOW
from tests.support.grpc_go import Talk, in_time

GREETING = PREFACE + frame(Kind.SETTINGS, 0, 0)
WINDOW_0 = Setting.INITIAL_WINDOW_SIZE.to_bytes(2, "big") + bytes(4)


async def upper(message: bytes) -> bytes:
    return message.upper()


async def echo(stream: Stream) -> None:
    while (message := await stream.read()) is not None:
        await stream.write(message)


async def hang(_: Stream) -> None:
    await asyncio.Event().wait()


def failing(error: Exception) -> Handler:
    async def handler(_: Stream) -> None:
        raise error

    return handler


HANDLERS = {"/s/Upper": unary(upper), "/s/Echo": echo, "/s/Hang": hang}


@asynccontextmanager
async def talk(
    *, generous: bool = True, greeting: bytes = b"", **more: Handler
) -> AsyncIterator[Talk]:
    """A client that has greeted a server with HANDLERS and more (`/s/NAME`)."""
    handlers = HANDLERS | {f"/s/{name}": handler for name, handler in more.items()}
    connection = Connection(handlers)
    client = Talk(connection, generous=generous)
    client.greet(greeting)
    yield client
    await connection.close()


def kinds(client: Talk) -> list[int]:
    return [kind for kind, _, _, _ in client.frames]


async def test_a_call_is_answered_with_headers_message_and_status() -> None:
    async with talk() as client:
        client.ask(1, "/s/Upper", b"who")
        answer = await client.ended(1)

    assert answer.headers == {":status": "200", "content-type": "application/grpc"}
    assert answer.messages == [b"WHO"]
    assert answer.trailers == {"grpc-status": "0"}
    assert answer.reset is None


async def test_the_server_opens_with_its_settings_and_acknowledges_the_clients() -> None:
    async with talk() as client:
        await client.quiet()

    assert client.frames[0][0] == Kind.SETTINGS
    assert client.frames[0][1] == 0
    assert (Kind.SETTINGS, 1, 0, b"") in client.frames


@settings(max_examples=60)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_the_bytes_may_come_in_any_pieces(sizes: list[int]) -> None:
    async def run() -> list[bytes]:
        connection = Connection(HANDLERS)
        spoken = bytearray()
        client = Talk(connection)
        client.feed = spoken.extend
        client.greet()
        client.open(1, "/s/Echo", [("k", "v" * 300)])
        client.say(1, b"", b"a", b"b" * 700, end=True)
        client.feed = connection.feed
        for size in sizes:
            connection.feed(bytes(spoken[:size]))
            del spoken[:size]
        connection.feed(bytes(spoken))
        answer = await client.ended(1)
        await connection.close()
        return answer.messages

    assert asyncio.run(run()) == [b"", b"a", b"b" * 700]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        pytest.param(
            CallFailed(Code.ABORTED, "no"), 10, "no", id="a failed call has the status it names"
        ),
        pytest.param(KeyError("x"), 5, "Not found: 'x'", id="what is not found is NOT_FOUND"),
        pytest.param(OSError(5, "Bad"), 2, "OSError: [Errno 5] Bad", id="all else is UNKNOWN"),
        pytest.param(
            ValueError("50 % ä\n"), 2, "ValueError: 50 %25 %C3%A4%0A", id="the text is escaped"
        ),
        pytest.param(
            ValueError("\udcff"), 2, "ValueError: ?", id="a text that is no text is sent, too"
        ),
    ],
)
async def test_failures_become_statuses(error: Exception, code: int, message: str) -> None:
    async with talk(Fail=failing(error)) as client:
        client.ask(1, "/s/Fail")
        answer = await client.ended(1)

    assert (answer.status, answer.message) == (code, message)
    assert answer.headers[":status"] == "200"


async def test_a_failure_after_messages_comes_in_the_trailers() -> None:
    async def half(stream: Stream) -> None:
        await stream.write(b"half")
        raise CallFailed(Code.INTERNAL, "then nothing")

    async with talk(Half=half) as client:
        client.ask(1, "/s/Half")
        answer = await client.ended(1)

    assert answer.messages == [b"half"]
    assert answer.trailers == {"grpc-status": "13", "grpc-message": "then nothing"}


async def test_a_very_long_reason_still_fits_into_one_frame() -> None:
    async with talk(Fail=failing(ValueError("ä" * 100_000))) as client:
        client.ask(1, "/s/Fail")
        answer = await client.ended(1)

    assert 4096 < len(answer.message) < 16384


async def test_an_unknown_method_is_unimplemented() -> None:
    async with talk() as client:
        client.ask(1, "/s/Nothing")
        answer = await client.ended(1)

    assert (answer.status, answer.message) == (12, "This client does not serve /s/Nothing.")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"\1\0\0\0\1x", 12, id="a compressed message is not understood"),
        pytest.param(
            b"\0" + (MAX_MESSAGE + 1).to_bytes(4, "big"), 8, id="a message must not be too long"
        ),
        pytest.param(b"\0\0\0\0\5abc", 13, id="a message must not end in its middle"),
        pytest.param(b"", 13, id="a unary call has a message"),
    ],
)
async def test_what_is_no_message_fails_its_call_only(body: bytes, code: int) -> None:
    async with talk() as client:
        client.open(1, "/s/Upper")
        client.feed(frame(Kind.DATA, END_STREAM, 1, body))
        answer = await client.ended(1)
        client.ask(3, "/s/Upper", b"next")
        await client.ended(3)

    assert answer.status == code
    assert client.answer(3).messages == [b"NEXT"]


async def test_after_a_bad_message_nothing_more_is_kept() -> None:
    async with talk() as client:
        client.open(1, "/s/Hang")
        client.say(1, b"")
        client.feed(frame(Kind.DATA, 0, 1, b"\1" * 16384))
        client.feed(frame(Kind.DATA, END_STREAM, 1, b"\1" * 16384))
        stream = client.connection._streams[1]

        assert len(stream._partial) == 16384


async def test_headers_may_be_cut_into_continuations() -> None:
    async with talk() as client:
        block = client.block("/s/Upper", [("exclude-patterns", "x" * 25_000)])
        client.feed(frame(Kind.HEADERS, 0, 1, block[:10]))
        client.feed(frame(Kind.CONTINUATION, 0, 1, block[10:10]))
        client.feed(frame(Kind.CONTINUATION, 0, 1, block[10:12_000]))
        client.feed(frame(Kind.CONTINUATION, END_HEADERS, 1, block[12_000:]))
        client.say(1, b"x", end=True)
        answer = await client.ended(1)

    assert answer.messages == [b"X"]


async def test_padding_and_priority_are_no_content() -> None:
    async with talk() as client:
        block = client.block("/s/Upper")
        flags = END_HEADERS | PADDED | PRIORITIZED
        client.feed(frame(Kind.HEADERS, flags, 1, b"\3" + b"\0\0\0\0\7" + block + b"\0\0\0"))
        client.feed(frame(Kind.DATA, PADDED, 1, b"\4" + b"\0\0\0\0\2h" + b"\0\0\0\0"))
        client.feed(frame(Kind.DATA, PADDED, 1, b"\1\0"))
        client.feed(frame(Kind.DATA, PADDED | END_STREAM, 1, b"\0i"))
        answer = await client.ended(1)

    assert answer.messages == [b"HI"]


async def test_every_value_of_a_header_is_kept_in_order() -> None:
    seen: list[object] = []

    async def look(stream: Stream) -> None:
        seen.append(stream.metadata)

    async with talk(Look=look) as client:
        client.open(1, "/s/Look", [("p", "b"), ("p", "a"), ("raw", "caf\xe9")])
        await client.ended(1)

    assert seen[0]["p"] == ["b", "a"]  # type: ignore[index]
    assert ":path" not in seen[0]  # type: ignore[operator]


async def test_a_ping_is_answered_with_its_own_bytes_and_an_answer_is_not() -> None:
    async with talk() as client:
        client.feed(frame(Kind.PING, 0, 0, b"12345678"))
        client.feed(frame(Kind.PING, 1, 0, b"87654321"))
        await client.quiet()

    pings = [found for found in client.frames if found[0] == Kind.PING]
    assert pings == [(Kind.PING, 1, 0, b"12345678")]


async def test_frames_that_mean_nothing_here_are_ignored() -> None:
    async with talk() as client:
        client.feed(frame(Kind.PRIORITY, 0, 9, b"\0\0\0\0\1"))
        client.feed(frame(Kind.GOAWAY, 0, 0, bytes(8)))
        client.feed(b"\0\0\1\x63\0\0\0\0\0x")
        client.ask(1, "/s/Upper", b"on")
        answer = await client.ended(1)

    assert answer.messages == [b"ON"]


async def test_a_message_larger_than_the_streams_window_comes_in_the_end() -> None:
    async with talk(generous=False, greeting=WINDOW_0) as client:
        client.ask(1, "/s/Upper", b"abcdef")
        await client.quiet()
        before = bytes(client.answer(1).body)
        for _ in range(11):
            client.feed(window_update(1, 1))
            await client.quiet()
        answer = await client.ended(1)

    assert before == b""
    assert answer.messages == [b"ABCDEF"]
    assert kinds(client).count(Kind.DATA) == 11


async def test_a_message_larger_than_the_connections_window_comes_in_the_end() -> None:
    large = WINDOW_0[:2] + (1 << 30).to_bytes(4, "big")
    message = b"x" * 100_000
    async with talk(generous=False, greeting=large, Big=unary(lambda _: ready(message))) as client:
        client.ask(1, "/s/Big")
        await client.quiet()
        first = len(client.answer(1).body)
        client.feed(window_update(0, 100_005))
        answer = await client.ended(1)

    assert first == 65535
    assert answer.messages == [message]


async def ready(message: bytes) -> bytes:
    return message


async def test_a_window_that_shrinks_below_zero_must_first_come_back() -> None:
    async with talk(generous=False, greeting=WINDOW_0[:2] + (4).to_bytes(4, "big")) as client:
        client.ask(1, "/s/Upper", b"abcdef")
        await client.quiet()
        client.feed(frame(Kind.SETTINGS, 0, 0, WINDOW_0))
        client.feed(window_update(1, 4))
        await client.quiet()
        stuck = bytes(client.answer(1).body)
        client.feed(frame(Kind.SETTINGS, 0, 0, WINDOW_0[:2] + (7).to_bytes(4, "big")))
        answer = await client.ended(1)

    assert len(stuck) == 4
    assert answer.messages == [b"ABCDEF"]


@pytest.mark.parametrize(
    ("greeting", "longest"),
    [
        pytest.param(b"", 16384, id="a peer that says nothing gets frames of 16 KiB"),
        pytest.param(
            Setting.MAX_FRAME_SIZE.to_bytes(2, "big") + (20_000).to_bytes(4, "big"),
            20_000,
            id="a peer that asks for longer frames gets them",
        ),
    ],
)
async def test_frames_are_as_long_as_the_peer_allows(greeting: bytes, longest: int) -> None:
    async with talk(greeting=greeting, Big=unary(lambda _: ready(b"x" * 50_000))) as client:
        client.ask(1, "/s/Big")
        answer = await client.ended(1)

    assert max(len(payload) for kind, *_, payload in client.frames if kind == 0) == longest
    assert answer.messages == [b"x" * 50_000]


async def test_many_messages_share_one_frame() -> None:
    async def many(stream: Stream) -> None:
        await stream.write(*(b"%d" % number for number in range(1000)))

    async with talk(Many=many) as client:
        client.ask(1, "/s/Many")
        answer = await client.ended(1)

    assert answer.messages == [b"%d" % number for number in range(1000)]
    assert kinds(client).count(Kind.DATA) == 1


async def test_messages_of_several_writers_are_never_torn() -> None:
    async def chorus(stream: Stream) -> None:
        voices = (stream.write(letter * 3000, letter) for letter in (b"a", b"b", b"c"))
        await asyncio.gather(*voices)

    async with talk(greeting=WINDOW_0[:2] + (700).to_bytes(4, "big"), Sing=chorus) as client:
        client.ask(1, "/s/Sing")
        answer = await client.ended(1)

    pairs = list(zip(answer.messages[::2], answer.messages[1::2], strict=True))
    assert pairs == [(one * 3000, one) for one in (b"a", b"b", b"c")]


async def test_a_slow_stream_does_not_hold_up_another() -> None:
    async with talk(generous=False) as client:
        client.open(1, "/s/Hang")
        client.say(1, b"x" * 500_000)
        client.ask(3, "/s/Upper", b"health")
        answer = await client.ended(3)

    assert answer.messages == [b"HEALTH"]


async def test_what_is_read_is_given_back_and_a_long_talk_never_ends() -> None:
    async with talk() as client:
        client.open(1, "/s/Echo")
        credit = sent = 0
        window = WINDOW
        for _ in range(100):
            if window - sent + credit < 60_005:
                await client.until(lambda: Kind.WINDOW_UPDATE in kinds(client))
            client.say(1, b"x" * 60_000)
            sent += 60_005
            await client.quiet()
            credit = sum(
                int.from_bytes(payload, "big")
                for kind, _, number, payload in client.frames
                if kind == Kind.WINDOW_UPDATE and number == 1
            )
        client.say(1, end=True)
        answer = await client.ended(1)

    assert len(answer.messages) == 100
    assert sent - WINDOW < credit <= sent


async def test_a_peer_that_overruns_a_stream_is_cut_off() -> None:
    async with talk() as client:
        client.open(1, "/s/Hang")
        with pytest.raises(ProtocolError) as caught:
            client.say(1, *(b"x" * 16384 for _ in range(WINDOW // 16384 + 1)))

    assert caught.value.code is ErrorCode.FLOW_CONTROL_ERROR


async def test_a_reset_cancels_the_handler_and_nothing_more_is_said() -> None:
    cancelled = asyncio.Event()

    async def wait(_: Stream) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with talk(Wait=wait) as client:
        client.open(1, "/s/Wait")
        await client.quiet()
        client.feed(frame(Kind.RST_STREAM, 0, 1, ErrorCode.CANCEL.to_bytes(4, "big")))
        await in_time(cancelled.wait())
        client.feed(window_update(1, 1))
        client.feed(frame(Kind.DATA, 0, 1, b"late"))
        client.feed(frame(Kind.RST_STREAM, 0, 1, bytes(4)))
        await client.quiet()

        assert client.connection._streams == {}
    assert all(number == 0 for _, _, number, _ in client.frames)


async def test_a_handler_that_ends_before_the_peer_asks_it_to_stop() -> None:
    async def brief(stream: Stream) -> None:
        await stream.read()

    async with talk(Brief=brief) as client:
        client.open(1, "/s/Brief")
        client.say(1, b"x")
        await client.until(lambda: client.answer(1).reset is not None)

    assert client.answer(1).status == 0
    assert client.answer(1).reset == ErrorCode.NO_ERROR


async def test_a_handler_that_is_cancelled_by_itself_resets_its_stream() -> None:
    async def weak(_: Stream) -> None:
        raise asyncio.CancelledError

    async with talk(Weak=weak) as client:
        client.ask(1, "/s/Weak")
        await client.until(lambda: client.answer(1).reset is not None)

    assert client.answer(1).reset == ErrorCode.CANCEL


async def test_trailers_of_a_request_end_it() -> None:
    async with talk() as client:
        client.open(1, "/s/Echo")
        client.say(1, b"x")
        flags = END_HEADERS | END_STREAM
        client.feed(frame(Kind.HEADERS, flags, 1, b"\x00\x01a\x01b"))
        answer = await client.ended(1)

    assert answer.messages == [b"x"]


async def test_closing_ends_every_handler() -> None:
    connection = Connection(HANDLERS)
    client = Talk(connection)
    client.greet()
    for number in (1, 3, 5):
        client.open(number, "/s/Hang")
    await client.quiet()
    await in_time(connection.close())

    assert not [task for task in asyncio.all_tasks() if "session call" in task.get_name()]


async def test_more_calls_than_announced_are_refused_and_the_rest_goes_on() -> None:
    async with talk() as client:
        for call in range(MAX_STREAMS + 1):
            client.open(2 * call + 1, "/s/Hang")
        refused = client.answer(2 * MAX_STREAMS + 1)
        await client.until(lambda: refused.reset is not None)

    assert refused.reset == ErrorCode.REFUSED_STREAM


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def setting(key: Setting, value: int) -> bytes:
    return frame(Kind.SETTINGS, 0, 0, key.to_bytes(2, "big") + number(value))


OPEN = frame(Kind.HEADERS, END_HEADERS, 1, b"\x83\x86\x04\x07/s/Hang")
OPEN_AND_ENDED = frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, b"\x83\x86\x04\x07/s/Hang")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n", 1, id="another protocol"),
        pytest.param(PREFACE + frame(Kind.PING, 0, 0, bytes(8)), 1, id="no SETTINGS at first"),
        pytest.param(PREFACE + frame(Kind.SETTINGS, 1, 0), 6, id="an ACK at first"),
        pytest.param(GREETING + b"\xff\xff\xff\0\0\0\0\0\1", 6, id="a frame of 16 MiB"),
        pytest.param(GREETING + frame(Kind.SETTINGS, 0, 0, b"12345"), 6, id="half a setting"),
        pytest.param(GREETING + frame(Kind.SETTINGS, 0, 3), 1, id="SETTINGS on a stream"),
        pytest.param(GREETING + frame(Kind.SETTINGS, 1, 0, b"x"), 6, id="an ACK with content"),
        pytest.param(
            GREETING + setting(Setting.INITIAL_WINDOW_SIZE, 1 << 31), 3, id="a window of 2 GiB"
        ),
        pytest.param(GREETING + setting(Setting.MAX_FRAME_SIZE, 5), 1, id="frames of 5 bytes"),
        pytest.param(
            GREETING + OPEN + window_update(1, 1 << 30) + window_update(1, 1 << 30),
            3,
            id="a stream's window grows beyond 2 GiB",
        ),
        pytest.param(
            GREETING + window_update(0, 0x7FFFFFFF), 3, id="the window grows beyond 2 GiB"
        ),
        pytest.param(
            GREETING
            + OPEN
            + window_update(1, 0x7FFF0000)
            + setting(Setting.INITIAL_WINDOW_SIZE, 0x7FFFFFFF),
            3,
            id="a setting lets a stream's window grow beyond 2 GiB",
        ),
        pytest.param(GREETING + window_update(0, 0), 1, id="a window widened by nothing"),
        pytest.param(GREETING + frame(Kind.WINDOW_UPDATE, 0, 0, b"x"), 6, id="a short update"),
        pytest.param(GREETING + window_update(1, 9), 1, id="an update of no stream"),
        pytest.param(GREETING + frame(Kind.PING, 0, 0, b"short"), 6, id="a short PING"),
        pytest.param(GREETING + frame(Kind.PING, 0, 1, bytes(8)), 1, id="a PING on a stream"),
        pytest.param(GREETING + frame(Kind.DATA, 0, 0, b"x"), 1, id="DATA without a stream"),
        pytest.param(GREETING + frame(Kind.DATA, 0, 7, b"x"), 1, id="DATA of no stream"),
        pytest.param(
            GREETING + OPEN_AND_ENDED + frame(Kind.DATA, 0, 1, b"x"), 5, id="DATA after the end"
        ),
        pytest.param(
            GREETING + frame(Kind.RST_STREAM, 0, 5, bytes(4)), 1, id="a reset of nothing"
        ),
        pytest.param(GREETING + frame(Kind.RST_STREAM, 0, 0, bytes(4)), 1, id="a reset of all"),
        pytest.param(GREETING + frame(Kind.PUSH_PROMISE, 0, 1, bytes(4)), 1, id="a push"),
        pytest.param(
            GREETING + frame(Kind.HEADERS, END_HEADERS, 2, b"\x83"), 1, id="an even number"
        ),
        pytest.param(GREETING + OPEN + OPEN, 1, id="headers in the middle of a stream"),
        pytest.param(
            GREETING + frame(Kind.HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
            9,
            id="headers that are no HPACK",
        ),
        pytest.param(
            GREETING + frame(Kind.HEADERS, END_HEADERS | PRIORITIZED, 1, b"\0\0"),
            6,
            id="headers shorter than their priority",
        ),
        pytest.param(
            GREETING + OPEN + frame(Kind.DATA, PADDED, 1, b"\5abc"), 1, id="padding beyond the end"
        ),
        pytest.param(
            GREETING + OPEN + frame(Kind.DATA, PADDED, 1, b""), 1, id="padding without a length"
        ),
        pytest.param(
            GREETING + frame(Kind.CONTINUATION, END_HEADERS, 1, b"\x83"),
            1,
            id="a CONTINUATION of nothing",
        ),
        pytest.param(
            GREETING + frame(Kind.HEADERS, 0, 1, b"\x83") + frame(Kind.PING, 0, 0, bytes(8)),
            1,
            id="another frame amidst headers",
        ),
        pytest.param(
            GREETING + frame(Kind.HEADERS, 0, 1, b"\x83") + frame(Kind.CONTINUATION, 4, 3, b""),
            1,
            id="a CONTINUATION of another stream",
        ),
        pytest.param(
            GREETING
            + frame(Kind.HEADERS, 0, 1, b"\x83")
            + 70 * frame(Kind.CONTINUATION, 0, 1, bytes(16384)),
            11,
            id="headers without end",
        ),
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_told_so_and_left(said: bytes, code: int) -> None:
    connection = Connection(HANDLERS)
    with pytest.raises(ProtocolError) as caught:
        connection.feed(said)
    client = Talk(connection)
    await client.until(lambda: Kind.GOAWAY in kinds(client))
    with pytest.raises(ProtocolError):
        connection.feed(b"")
    await connection.close()

    assert caught.value.code == code
    assert client.frames[-1][3][4:8] == number(code)


async def test_a_peer_that_asks_and_never_listens_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imagewright.clients.buildkit.http2.FLOOD", 10_000)
    connection = Connection(HANDLERS)
    with pytest.raises(ProtocolError) as caught:
        connection.feed(GREETING + 1000 * frame(Kind.PING, 0, 0, bytes(8)))

    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM


@settings(max_examples=150)
@given(
    st.lists(
        st.one_of(
            st.builds(
                frame,
                st.sampled_from(list(Kind)),
                st.integers(0, 255),
                st.integers(0, 5),
                st.binary(max_size=40),
            ),
            st.binary(max_size=60),
            st.just(OPEN),
        ),
        max_size=12,
    )
)
def test_whatever_comes_is_either_taken_or_a_protocol_error(said: list[bytes]) -> None:
    async def run() -> None:
        connection = Connection(HANDLERS)
        connection.feed(GREETING)
        try:
            for part in said:
                connection.feed(part)
        except ProtocolError:
            pass
        await in_time(connection.outgoing())
        await in_time(connection.close())

    asyncio.run(run())


@settings(max_examples=40)
@given(
    st.lists(st.binary(max_size=900), max_size=30),
    st.integers(1, 500),
    st.integers(1, 300),
)
def test_messages_survive_any_windows(messages: list[bytes], window: int, step: int) -> None:
    async def run() -> list[bytes]:
        async with talk(
            generous=False, greeting=WINDOW_0[:2] + number(window), Repeat=repeat(messages)
        ) as client:
            client.ask(1, "/s/Repeat")
            while not client.answer(1).ended:
                await client.quiet()
                client.feed(window_update(1, step) + window_update(0, step))
            return client.answer(1).messages

    assert asyncio.run(run()) == messages


def repeat(messages: list[bytes]) -> Callable[[Stream], Awaitable[None]]:
    async def handler(stream: Stream) -> None:
        await stream.write(*messages)

    return handler
