"""Who waits for objects is told when one has changed, at a bounded price."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from imagewright.kube.lookout import Lookout
from imagewright.ports import Unavailable
from tests.support.waiting import turns

EVERY = 0.02


class Scene:
    """A lookout over versions in memory; all questions are noted, with their time."""

    def __init__(self, at_most: float = 1000) -> None:
        self.versions: dict[str, str] = {}
        self.asked: list[tuple[str, float]] = []
        self.told: list[str] = []
        self.error: Exception | None = None
        self.lookout = Lookout(self.version, EVERY, at_most)

    async def version(self, path: str) -> str:
        self.asked.append((path, asyncio.get_running_loop().time()))
        if self.error:
            raise self.error
        return self.versions.get(path, "")

    def watch(self, who: str, **seen: str) -> Callable[[], None]:
        """Somebody waits, having seen these."""
        return self.lookout.watch(seen, lambda: self.told.append(who))

    def questions(self, path: str) -> int:
        """How often it was asked after."""
        return sum(one == path for one, _ in self.asked)

    async def until(self, right: Callable[[], object]) -> None:
        """Let the loop turn until it is right."""
        await turns(right)


@contextlib.asynccontextmanager
async def looking(scene: Scene) -> AsyncIterator[Scene]:
    """The scene with its lookout running."""
    running = asyncio.create_task(scene.lookout.run())
    try:
        yield scene
        assert not running.done()
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


SEEN: dict[str, tuple[Mapping[str, str], Mapping[str, str], bool]] = {
    "it was missing, and is there": ({"a": ""}, {"a": "1"}, True),
    "it is missing still": ({"a": ""}, {}, False),
    "it lacked a key, and is another now": ({"a": "1"}, {"a": "2"}, True),
    "it lacks the key still": ({"a": "1"}, {"a": "1"}, False),
    "it was there, and is gone": ({"a": "1"}, {}, True),
    "one of two has changed": ({"a": "1", "b": ""}, {"a": "2"}, True),
    "neither of two has changed": ({"a": "1", "b": ""}, {"a": "1"}, False),
}


@pytest.mark.row("F40")
@pytest.mark.parametrize(("seen", "there", "told"), SEEN.values(), ids=SEEN.keys())
async def test_who_waits_is_told_of_a_change_and_of_nothing_else(
    seen: Mapping[str, str], there: Mapping[str, str], told: bool
) -> None:
    async with looking(Scene()) as scene:
        scene.versions = dict(there)
        scene.watch("me", **seen)
        await scene.until(lambda: scene.told or all(scene.questions(one) > 2 for one in seen))
        assert scene.told == ["me"] * told


@pytest.mark.row("F40")
async def test_a_hundred_who_wait_for_one_object_share_each_question() -> None:
    async with looking(Scene()) as scene:
        for number in range(100):
            scene.watch(str(number), a="")
        await scene.until(lambda: len(scene.asked) == 5)
        first, last = scene.asked[0][1], scene.asked[4][1]
        assert last - first >= 4 * EVERY
        scene.versions["a"] = "1"
        await scene.until(lambda: len(scene.told) == 100)
        assert len(scene.asked) == 6


@pytest.mark.row("F40")
async def test_the_rate_of_all_questions_is_bounded_and_each_object_has_its_turn() -> None:
    at_most = 200
    async with looking(Scene(at_most)) as scene:
        for number in range(20):
            scene.watch(f"{number}", **{f"secret-{number}": ""})
        await scene.until(lambda: len(scene.asked) == 61)
        # Within EVERY they could not all be asked after: each waits for its turn.
        assert {scene.questions(f"secret-{number}") for number in range(1, 20)} == {3}
        assert scene.asked[60][1] - scene.asked[0][1] >= 60 / at_most


async def test_who_waits_no_longer_is_not_told_and_nobody_asks_for_it() -> None:
    async with looking(Scene()) as scene:
        gone, there = scene.watch("gone", a="", b=""), scene.watch("there", a="")
        gone()
        scene.versions = {"a": "1", "b": "1"}
        await scene.until(lambda: scene.told)
        assert scene.told == ["there"]
        assert scene.questions("b") == 0
        assert len(scene.lookout) == 0
        gone()
        there()
        count = len(scene.asked)
        scene.watch("next", c="")
        await scene.until(lambda: scene.questions("c") == 2)
        assert len(scene.asked) == count + 2


async def test_who_is_told_may_go_on_to_wait_for_the_same() -> None:
    async with looking(Scene()) as scene:
        scene.versions = {"a": "1"}

        def again() -> None:
            scene.told.append("once")
            scene.watch("twice", a="1")

        scene.lookout.watch({"a": ""}, again)
        await scene.until(lambda: scene.told == ["once"])
        scene.versions = {"a": "2"}
        await scene.until(lambda: scene.told == ["once", "twice"])


@pytest.mark.parametrize("error", [Unavailable("No answer."), KeyError("metadata")], ids=repr)
async def test_an_answer_that_does_not_come_or_is_none_is_asked_for_again(
    error: Exception,
) -> None:
    async with looking(Scene()) as scene:
        scene.error = error
        scene.watch("me", a="")
        await scene.until(lambda: scene.questions("a") == 3)
        assert scene.told == []
        scene.versions, scene.error = {"a": "1"}, None
        await scene.until(lambda: scene.told == ["me"])


async def test_who_has_seen_nothing_waits_for_nothing() -> None:
    async with looking(Scene()) as scene:
        scene.watch("me")
        assert len(scene.lookout) == 0
