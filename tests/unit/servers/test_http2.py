"""The few frames that are read and written, against frames made by another implementation."""

import pytest

from imagewright.servers.http2 import (
    ENHANCE_YOUR_CALM,
    MOST_HELD,
    PREFACE,
    NotHttp2,
    Opening,
    frame_of,
    goaway,
    settings,
    settings_ack,
    trailers,
)

GREETING = PREFACE + frame_of(0x4, 0, 0, b"\x00\x02\x00\x00\x00\x00")
WINDOW = frame_of(0x8, 0, 0, (1 << 20).to_bytes(4))
ACK = frame_of(0x4, 0x1, 0)
REQUEST = frame_of(0x1, 0x4, 1, b"\x88")
DATA = frame_of(0x0, 0x1, 1, b"\0\0\0\0\0")


@pytest.mark.parametrize("step", [1, 3, 7, 24, 1000])
def test_everything_is_held_but_the_first_acknowledgement(step: int) -> None:
    opening, said = Opening(), GREETING + WINDOW + REQUEST + ACK + DATA + ACK
    for start in range(0, len(said), step):
        assert opening.feed(said[start : start + step]) == b""
    assert opening.acknowledged
    assert opening.all() == GREETING + WINDOW + REQUEST + DATA + ACK
    assert opening.streams == [1]


def test_half_a_frame_reaches_the_worker_too() -> None:
    opening = Opening()
    opening.feed(GREETING + ACK + DATA[:5])
    assert opening.all() == GREETING + DATA[:5]


def test_a_ping_is_answered_and_not_held() -> None:
    opening = Opening()
    answer = opening.feed(GREETING + frame_of(0x6, 0, 0, b"12345678"))
    assert answer == frame_of(0x6, 0x1, 0, b"12345678")
    assert opening.all() == GREETING
    pong = frame_of(0x6, 0x1, 0, b"87654321")
    assert opening.feed(pong) == b""
    assert opening.all() == GREETING + pong


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n",
        b"P_I",
        PREFACE + b"\x00\x40\x01\x00\x00\x00\x00\x00\x01",
        GREETING + frame_of(0x0, 0, 1, b"x" * 16000) * (MOST_HELD // 16000 + 1),
    ],
    ids=["HTTP/1.1", "not even that", "a frame that is too long", "more than was allowed"],
)
def test_what_no_client_may_say_is_refused(said: bytes) -> None:
    with pytest.raises(NotHttp2):
        Opening().feed(said)


def test_frames_are_written_as_the_standard_has_them() -> None:
    assert settings() == bytes.fromhex("000000040000000000")
    assert settings_ack() == bytes.fromhex("000000040100000000")
    assert goaway(ENHANCE_YOUR_CALM, "no") == bytes.fromhex(
        "00000a0700000000007fffffff0000000b6e6f"
    )


@pytest.mark.parametrize("length", [0, 3, 126, 127, 128, 254, 255, 256, 1000])
def test_an_answer_to_a_request_says_how_long_its_sentence_is(length: int) -> None:
    frame = trailers(5, 8, "x" * length)
    assert (frame[3], frame[4], frame[5:9]) == (0x1, 0x5, b"\0\0\0\5")
    block = frame[9:]
    assert int.from_bytes(frame[:3]) == len(block)
    assert block.startswith(
        b"\x88\x00\x0ccontent-type\x10application/grpc\x00\x0bgrpc-status\x018"
    )
    coded = block[block.index(b"grpc-message") + 12 :]
    assert integer(coded) == length
    assert coded.endswith(b"x" * length)


def test_a_sentence_is_written_in_the_characters_that_grpc_allows() -> None:
    assert trailers(1, 8, "50 % für\nalle").endswith(b"50 %25 f%C3%BCr%0Aalle")


def integer(coded: bytes) -> int:
    """RFC 7541, 5.1, with a prefix of seven bits."""
    value = coded[0]
    if value < 0x7F:
        return value
    for place, byte in enumerate(coded[1:]):
        value += (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    return value
