"""What the stream of a push comes to."""

from collections.abc import AsyncIterator

import pytest

from imagewright.clients.engine.errors import NoResult
from imagewright.clients.engine.push import digest_of
from imagewright.clients.engine.stream import Aux, Message, Status

GOOD, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


async def said(*given: Message) -> AsyncIterator[Message]:
    for message in given:
        yield message


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(
            [Status(f"1: digest: {GOOD} size: 524"), Aux("", {"Tag": "1", "Digest": GOOD})],
            id="a graph driver tells it twice",
        ),
        pytest.param([Status(f"1: digest: {GOOD} size: 696")], id="containerd tells it in a line"),
        pytest.param(
            [
                Aux("", {"manifestPushedInsteadOfIndex": True}),
                Status(f"1: digest: {GOOD} size: 9"),
            ],
            id="and has notices",
        ),
        pytest.param(
            [
                Status(f"1: digest: {GOOD} size: 1"),
                Status(f"2: digest: {OTHER} size: 1"),
                Aux("", {"Tag": "2", "Digest": OTHER}),
            ],
            id="that of another tag is another",
        ),
        pytest.param(
            [Status(f"1: digest: {GOOD} size: 1"), Aux("", {"Tag": "1", "Digest": "nonsense"})],
            id="what is no digest is none",
        ),
    ],
)
async def test_the_digest_is_found(given: list[Message]) -> None:
    progress = [Status("The push refers to repository [r.test/a]"), Status("Pushed", "abc", 1, 1)]

    assert await digest_of(said(*progress, *given), "1") == GOOD


@pytest.mark.parametrize(
    "given",
    [
        pytest.param([], id="nothing"),
        pytest.param([Status("Pushed")], id="progress only"),
        pytest.param([Status(f"2: digest: {GOOD} size: 1")], id="another tag only"),
        pytest.param([Status(f"so 1: digest: {GOOD} size: 1")], id="a line that quotes one"),
    ],
)
async def test_a_push_without_a_digest_has_no_result(given: list[Message]) -> None:
    with pytest.raises(NoResult):
        await digest_of(said(*given), "1")
