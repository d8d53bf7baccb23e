"""The stream of objects, in whatever pieces it comes."""

import base64
from collections.abc import AsyncIterator

import pytest

from imagewright.clients.engine import stream
from imagewright.clients.engine.errors import EngineError, StreamError, Unreachable
from imagewright.clients.engine.stream import Aux, Message, Output, Status, Trace, messages

LINES = (
    b'{"stream":"Step 1/2 : FROM a\\n"}\r\n'
    b'{"status":"Downloading","progressDetail":{"current":3,"total":9},"id":"abc"}\r\n'
    b"{}\r\n"
    b'{"stream":"gr\xc3\xbc\xc3\x9fe\\n"}\r\n'
    b'{"aux":{"ID":"sha256:1"}}\r\n'
    b'{"id":"moby.image.id","aux":{"ID":"sha256:2"}}\r\n'
)
SAID = [
    Output("Step 1/2 : FROM a\n"),
    Status("Downloading", "abc", 3, 9),
    Output("grüße\n"),
    Aux("", {"ID": "sha256:1"}),
    Aux("moby.image.id", {"ID": "sha256:2"}),
]


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def heard(*chunks: bytes) -> list[Message]:
    return [message async for message in messages(pieces(*chunks))]


@pytest.mark.row("B53")
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
async def test_objects_come_in_pieces_of_any_size(size: int) -> None:
    assert await heard(*(LINES[at : at + size] for at in range(0, len(LINES), size))) == SAID


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param([], [], id="nothing at all"),
        pytest.param([b"{}\r\n", b"\r\n\n  \r\n"], [], id="empty objects and empty lines"),
        pytest.param(
            [b'{"stream":"a"}{"stream":"b"}\n'], [Output("a"), Output("b")], id="no space"
        ),
        pytest.param([b'{"stream":"a"}'], [Output("a")], id="no line end at the end"),
        pytest.param([b'{"stream":"a"}\n', b""], [Output("a")], id="an empty piece"),
        pytest.param([b'{"stream":"\xff\xfe!"}\n'], [Output("\ufffd\ufffd!")], id="no UTF-8"),
        pytest.param([b'{"stream":"\\ud800!"}\n'], [Output("?!")], id="half a character"),
        pytest.param([b'{"stream":""}\n'], [], id="an empty text"),
        pytest.param([b'{"stream":null,"status":null}\n'], [], id="null in place of a text"),
        pytest.param(
            [b'{"status":"x","progressDetail":{}}\n'], [Status("x")], id="progress without numbers"
        ),
        pytest.param([b'{"status":"x","progressDetail":null}\n'], [Status("x")], id="or none"),
        pytest.param([b'{"aux":7,"id":"n"}\n'], [Aux("n", {"value": 7})], id="a fact of any kind"),
        pytest.param(
            [b'{"id":"moby.buildkit.trace","aux":"%s"}\n' % base64.b64encode(b"\0\1")],
            [Trace(b"\0\1")],
            id="BuildKit's progress is bytes",
        ),
    ],
)
async def test_what_objects_say(chunks: list[bytes], expected: list[Message]) -> None:
    assert await heard(*chunks) == expected


@pytest.mark.parametrize(
    ("line", "text", "code"),
    [
        pytest.param(
            b'{"errorDetail":{"code":7,"message":"returned 7"},"error":"returned 7"}',
            "returned 7",
            7,
            id="with the exit code of a step",
        ),
        pytest.param(
            b'{"errorDetail":{"message":"no"},"error":"no"}', "no", None, id="without a code"
        ),
        pytest.param(b'{"error":"old"}', "old", None, id="in the old form"),
        pytest.param(
            b'{"errorDetail":null}',
            "The engine failed and does not say why.",
            None,
            id="without a word",
        ),
    ],
)
async def test_an_error_comes_at_its_place(line: bytes, text: str, code: int | None) -> None:
    found = messages(pieces(b'{"stream":"a"}\r\n' + line + b"\r\n"))

    assert await anext(found) == Output("a")
    with pytest.raises(StreamError) as caught:
        await anext(found)
    assert (str(caught.value), caught.value.code) == (text, code)


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([b"<html>\n"], id="a page"),
        pytest.param([b"[1]\n"], id="a list"),
        pytest.param([b'{"stream":"a"} x\n'], id="an object and something else"),
        pytest.param([b'{"id":"moby.buildkit.trace","aux":"!"}\n'], id="a trace that is none"),
    ],
)
async def test_what_is_no_such_stream_is_refused(chunks: list[bytes]) -> None:
    with pytest.raises(EngineError) as caught:
        await heard(*chunks)
    assert not isinstance(caught.value, StreamError | Unreachable)


async def test_a_stream_that_stops_inside_of_an_object_broke() -> None:
    with pytest.raises(Unreachable, match="in the middle"):
        await heard(b'{"stream":"a"}\r\n{"str')


async def test_an_object_without_end_meets_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LARGEST", 100)
    with pytest.raises(EngineError, match="more than"):
        await heard(*[b"x" * 10] * 11)


async def test_many_objects_are_not_one_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LARGEST", 100)
    assert len(await heard(*[b'{"stream":"ten letters"}\r\n'] * 50)) == 50
