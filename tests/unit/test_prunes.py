"""Caches are pruned side by side, and none hides what became of another."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from imagewright.api.reason import Reason
from imagewright.domain.prune import Policy, Swept, Target
from imagewright.ports import Cache, Rejected, Unavailable
from imagewright.prunes import Prunes, caches_of, sweep
from tests.support.pooling import a_pool, a_worker
from tests.support.prunemakers import ONE, SOURCE, TWO, FakeCache, MuteCache

POLICY = Policy(all=True)


async def swept(caches: Mapping[Target, Cache]) -> tuple[Swept, ...]:
    """A sweep that is claimed already."""
    claimed = asyncio.Event()
    claimed.set()
    return await sweep(caches, POLICY, claimed)


@pytest.mark.row("seed-14")
async def test_all_caches_are_asked_at_once() -> None:
    caches = {ONE: FakeCache(3), TWO: FakeCache(4), SOURCE: FakeCache(5)}
    for cache in caches.values():
        cache.go.clear()
    sweeping = asyncio.create_task(swept(dict(caches)))
    while not all(cache.policies for cache in caches.values()):
        await asyncio.sleep(0)
    for cache in caches.values():
        cache.go.set()
    found = {one.target: one for one in await sweeping}
    assert {target: one.reclaimed.size for target, one in found.items()} == {
        ONE: 3,
        TWO: 4,
        SOURCE: 5,
    }
    assert (found[ONE].before, found[ONE].after) == (3, 0)


FAULTS: dict[str, tuple[FakeCache, Reason, str, int | None]] = {
    "one that is gone": (
        MuteCache(9, Unavailable("Nobody is there.")),
        Reason.BUILDER_UNAVAILABLE,
        "Nobody is there.",
        None,
    ),
    "one that refuses": (
        FakeCache(9, Rejected("Too old.", Reason.FEATURE_UNSUPPORTED)),
        Reason.FEATURE_UNSUPPORTED,
        "Too old.",
        9,
    ),
    "one that hangs": (
        FakeCache(9, TimeoutError()),
        Reason.BUILDER_UNAVAILABLE,
        "did not answer in time",
        9,
    ),
    "one that we broke": (
        FakeCache(9, ZeroDivisionError("ours")),
        Reason.PRUNE_FAILED,
        "The operator itself failed",
        9,
    ),
}


@pytest.mark.row("seed-14")
@pytest.mark.parametrize(("cache", "reason", "sentence", "before"), FAULTS.values(), ids=FAULTS)
async def test_a_cache_that_fails_hides_nothing_of_the_others(
    cache: FakeCache, reason: Reason, sentence: str, before: int | None
) -> None:
    failed, well = await swept({ONE: cache, TWO: FakeCache(4)})
    assert failed.fault is not None
    assert failed.fault.reason is reason
    assert sentence in failed.fault.message
    assert (failed.before, failed.reclaimed.size) == (before, 0)
    assert (well.fault, well.reclaimed.size) == (None, 4)


async def test_a_cache_that_was_pruned_need_not_say_what_is_left() -> None:
    class Forgetful(FakeCache):
        """One that breaks once it was pruned."""

        async def usage(self) -> int:
            if self.policies:
                raise Unavailable("Gone meanwhile.")
            return self.size

    (only,) = await swept({ONE: Forgetful(9)})
    assert (only.fault, only.reclaimed.size, only.before, only.after) == (None, 9, 9, None)


@pytest.mark.parametrize(
    "cancel",
    [lambda prunes: prunes.cancel("uid"), lambda prunes: prunes.cancel_all()],
    ids=["this one", "all of them"],
)
async def test_a_cancelled_prune_cancels_every_cache(cancel: Callable[[Prunes], None]) -> None:
    ended: list[str] = []
    prunes = Prunes(ended.append)
    caches = {ONE: FakeCache(), TWO: FakeCache()}
    for cache in caches.values():
        cache.go.clear()
    with prunes.claim("uid", 1, POLICY, dict(caches)):
        await asyncio.sleep(0)
    while not all(cache.policies for cache in caches.values()):
        await asyncio.sleep(0)
    cancel(prunes)
    cancel(prunes)
    await prunes.quiet()
    assert [cache.cancelled for cache in caches.values()] == [1, 1]
    assert (prunes.look("uid"), prunes.uids(), ended) == (None, (), [])


async def test_until_it_is_claimed_a_cache_is_only_asked_what_it_holds() -> None:
    prunes = Prunes(lambda _: None)
    cache = FakeCache(5)
    with prunes.claim("uid", 1, POLICY, {ONE: cache}):
        while not cache.asked:
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert cache.policies == []
    await prunes.drained(1)
    assert len(cache.policies) == 1


@pytest.mark.parametrize(
    "error", [Unavailable("No answer."), asyncio.CancelledError()], ids=["failed", "cancelled"]
)
async def test_a_claim_that_was_not_written_prunes_nothing(error: BaseException) -> None:
    ended: list[str] = []
    prunes = Prunes(ended.append)
    caches = {ONE: FakeCache(5), TWO: MuteCache(5)}

    async def claim_in_vain() -> None:
        with prunes.claim("uid", 1, POLICY, dict(caches)):
            while not all(cache.asked for cache in caches.values()):
                await asyncio.sleep(0)
            raise error

    with pytest.raises(type(error)):
        await claim_in_vain()
    await prunes.quiet()
    assert [cache.policies for cache in caches.values()] == [[], []]
    assert (prunes.look("uid"), ended) == (None, [])


async def test_a_claim_that_is_cancelled_while_it_is_written_prunes_nothing() -> None:
    prunes = Prunes(lambda _: None)
    cache = FakeCache(5)
    with prunes.claim("uid", 1, POLICY, {ONE: cache}):
        while not cache.asked:
            await asyncio.sleep(0)
        prunes.cancel("uid")
    await prunes.quiet()
    assert (cache.policies, prunes.uids()) == ([], ())


async def test_an_end_is_told_once_and_remembered_until_it_was_written() -> None:
    ended: list[str] = []
    prunes = Prunes(ended.append)
    with prunes.claim("uid", 3, POLICY, {ONE: FakeCache(5)}):
        await asyncio.sleep(0)
    running = prunes.look("uid")
    assert running is not None
    assert (running.generation, running.results) == (3, None)
    await prunes.drained(1)
    over = prunes.look("uid")
    assert over is not None
    assert over.results is not None
    assert over.results[0].reclaimed.size == 5
    assert ended == ["uid"]
    prunes.forget("uid")
    assert prunes.look("uid") is None


def test_the_caches_are_those_of_the_workers_and_our_own() -> None:
    cache: Cache = FakeCache()
    pool = a_pool(a_worker("one", caches={"buildkit": cache}), a_worker("two"), name="p")
    found = caches_of([pool], {"sources": cache})
    assert list(found) == [ONE, SOURCE]
