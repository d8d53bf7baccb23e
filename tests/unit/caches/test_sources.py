"""The cache of fetched sources: what is in view, for how long, and how much of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from imagewright.caches.shelf import PAGE
from imagewright.caches.sources import Limits, SourceCache
from imagewright.domain.prune import Policy
from imagewright.ports import Failed, Unavailable

KIND = "source.git"
EACH = 4 * PAGE
"""Of a tree with one small file: two folders, the file, and the entry's name."""
Fill = Callable[[Path], Awaitable[None]]


class Clock:
    """Seconds that pass when they are told to."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def cache(tmp_path: Path, clock: Clock) -> AsyncIterator[SourceCache]:
    limits = Limits(EACH * 3, timedelta(hours=1))
    async with SourceCache(tmp_path / "cache", limits, clock) as cache:
        yield cache


async def fill(folder: Path) -> None:
    """Fetch one small file."""
    await asyncio.to_thread((folder / "file").write_text, "content")


async def unwanted(folder: Path) -> None:
    pytest.fail("it was there already")


async def use(cache: SourceCache, clock: Clock, *names: str) -> None:
    """Use each of them once, a second apart."""
    for name in names:
        clock.now += 1
        async with cache.lease(KIND, name, fill):
            pass
    await cache.settled()


async def names(cache: SourceCache) -> list[str]:
    """What is there, by the one way to see it."""
    found = await cache.prune(Policy(dry_run=True, all=True))
    return [held.entry.name for held in cache._entries.values() if held.entry.id in found.ids]


@pytest.mark.row("seed-5")
async def test_a_tree_is_fetched_once_and_then_kept(cache: SourceCache) -> None:
    async with cache.lease(KIND, "a", fill) as tree:
        assert (tree / "file").read_text() == "content"
    async with cache.lease(KIND, "a", unwanted) as again:
        assert again == tree
    assert await cache.usage() == EACH


async def test_one_fetch_serves_all_who_wait(cache: SourceCache) -> None:
    started, go, count = asyncio.Event(), asyncio.Event(), 0

    async def slow(folder: Path) -> None:
        nonlocal count
        count += 1
        started.set()
        await go.wait()
        await fill(folder)

    async def build() -> Path:
        async with cache.lease(KIND, "a", slow) as tree:
            return tree

    builds = [asyncio.create_task(build()) for _ in range(8)]
    await started.wait()
    assert await cache.usage() == 0, "nothing is in view before it is whole"
    go.set()
    assert len(set(await asyncio.gather(*builds))) == count == 1


async def test_who_waits_for_a_fetch_that_fails_tries_himself(
    cache: SourceCache, tmp_path: Path
) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def broken(folder: Path) -> None:
        await fill(folder)
        started.set()
        await go.wait()
        raise Failed("It broke.")

    async def build(how: Fill) -> bool:
        async with cache.lease(KIND, "a", how) as tree:
            return (tree / "file").exists()

    first = asyncio.create_task(build(broken))
    await started.wait()
    second = asyncio.create_task(build(fill))
    go.set()
    with pytest.raises(Failed, match="It broke"):
        await first
    assert await second
    assert list((tmp_path / "cache" / "temp").iterdir()) == []


async def test_who_waits_for_a_cancelled_fetch_tries_himself(
    cache: SourceCache, tmp_path: Path
) -> None:
    started = asyncio.Event()

    async def stuck(folder: Path) -> None:
        await fill(folder)
        started.set()
        await asyncio.Event().wait()

    async def build(how: Fill) -> bool:
        async with cache.lease(KIND, "a", how) as tree:
            return (tree / "file").exists()

    first = asyncio.create_task(build(stuck))
    await started.wait()
    second = asyncio.create_task(build(fill))
    first.cancel()
    assert await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert list((tmp_path / "cache" / "temp").iterdir()) == []


@pytest.mark.row("seed-5")
async def test_what_was_used_longest_ago_goes_first(cache: SourceCache, clock: Clock) -> None:
    await use(cache, clock, "a", "b", "c", "a", "d")
    assert sorted(await names(cache)) == ["a", "c", "d"]
    assert await cache.usage() == EACH * 3


@pytest.mark.row("seed-5")
async def test_what_nobody_used_for_too_long_goes(cache: SourceCache, clock: Clock) -> None:
    await use(cache, clock, "a", "b")
    clock.now += 3599
    await use(cache, clock, "c")
    assert sorted(await names(cache)) == ["b", "c"]


async def test_a_tree_in_use_outlives_its_limits_and_a_prune(
    cache: SourceCache, clock: Clock
) -> None:
    async with cache.lease(KIND, "a", fill) as tree:
        clock.now += 9000
        await use(cache, clock, "b", "c", "d", "e")
        await cache.prune(Policy(all=True))
        assert (tree / "file").exists()
        assert await cache.usage() == EACH
    found = await cache.prune(Policy(all=True))
    assert found.size == EACH
    assert not tree.exists()


@pytest.mark.parametrize(
    ("policy", "gone"),
    [
        (Policy(), "abc"),
        (Policy(max_used_space=EACH * 2 + 1), "a"),
        (Policy(reserved_space=EACH + 1), "ab"),
        (Policy(keep=timedelta(seconds=2)), "ab"),
        (Policy(filters={"type": ("source.http",)}), ""),
        (Policy(filters={"type": ("source.git", "source.http")}), "abc"),
        (Policy(filters={"description": ("b",)}), "b"),
        (Policy(filters={"id": ("^git-",)}), "abc"),
        (Policy(filters={"id": ("^http-",)}), ""),
        (Policy(min_free_space=1), ""),
        (Policy(min_free_space=1 << 60), "abc"),
        (Policy(min_free_space=1 << 60, reserved_space=EACH * 2 + 1), "a"),
    ],
)
async def test_a_prune_frees_what_its_policy_asks_for(
    cache: SourceCache, clock: Clock, policy: Policy, gone: str
) -> None:
    await use(cache, clock, "a", "b", "c")
    clock.now += 1
    before = await names(cache)
    told = await cache.prune(replace(policy, dry_run=True))
    assert await names(cache) == before, "a dry run takes nothing"
    done = await cache.prune(policy)
    assert done == told
    assert done.size == len(gone) * EACH
    assert sorted(await names(cache)) == sorted({"a", "b", "c"} - set(gone))


async def test_a_restart_finds_what_is_whole_and_sweeps_the_rest(
    tmp_path: Path, clock: Clock
) -> None:
    root, limits = tmp_path / "cache", Limits(EACH * 2, timedelta(hours=1))
    async with SourceCache(root, Limits(), clock) as cache:
        await use(cache, clock, "a", "b", "c", "a")
    (root / "temp" / "half" / "tree").mkdir(parents=True)
    (root / "entries" / "git-0123.x" / "tree").mkdir(parents=True)
    (root / "entries" / "git-4567.x" / "tree").mkdir(parents=True)
    (root / "entries" / "git-4567.x" / "name").write_text("source.git\nlie")
    async with SourceCache(root, limits, clock) as cache:
        assert list((root / "temp").iterdir()) == []
        await cache.settled()
        assert sorted(await names(cache)) == ["a", "c"], "b was used longest ago"
        async with cache.lease(KIND, "a", unwanted):
            pass
    assert len(list((root / "entries").iterdir())) == 2


async def test_a_folder_has_one_user(tmp_path: Path, cache: SourceCache) -> None:
    with pytest.raises(Unavailable, match="give each operator a folder of its own"):
        async with SourceCache(tmp_path / "cache", Limits()):
            pytest.fail("two of them are in it")


async def test_a_disk_that_fails_is_an_outage(cache: SourceCache) -> None:
    async def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(Unavailable, match="No space left"):
        async with cache.lease(KIND, "a", full):
            pytest.fail("it was stored")


async def test_folders_that_may_not_be_written_go_all_the_same(
    cache: SourceCache, tmp_path: Path
) -> None:
    async def locked(folder: Path) -> None:
        inner = folder / "inner"
        await asyncio.to_thread(inner.mkdir)
        await fill(inner)
        await asyncio.to_thread(inner.chmod, 0o500)

    async with cache.lease(KIND, "a", locked) as tree:
        assert (tree / "inner").stat().st_mode & 0o777 == 0o500
    await cache.prune(Policy())
    assert list((tmp_path / "cache" / "entries").iterdir()) == []


async def test_scratch_is_gone_afterwards(cache: SourceCache) -> None:
    async with cache.scratch() as folder:
        await fill(folder)
    assert not folder.exists()
