"""What a BuildKit daemon is asked for a policy, and what its answers mean."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from imagewright.api.reason import Reason
from imagewright.caches.buildkit import BuildKitCache, expressions
from imagewright.clients.buildkit.errors import (
    BuildKitError,
    SolveError,
    TLSRefused,
    Unreachable,
    Unsupported,
)
from imagewright.clients.buildkit.usage import Prune, Record
from imagewright.clients.buildkit.workers import is_since
from imagewright.domain.prune import Policy
from imagewright.ports import Error, Failed, Rejected, Unavailable


class FakeControl:
    """A daemon of this version with these records; it notes what it is asked."""

    def __init__(self, version: str = "v0.32.2") -> None:
        self.version = version
        self.asked: list[Prune] = []
        self.records = (Record("a", 10, type="regular"), Record("b", 5, in_use=True))
        self.error: BuildKitError | None = None

    async def info(self) -> str:
        if self.error:
            raise self.error
        return self.version

    async def is_since(self, oldest: tuple[int, int]) -> bool:
        return is_since(self.version, oldest)

    async def disk_usage(self) -> tuple[Record, ...]:
        return self.records

    async def prune(self, prune: Prune) -> tuple[Record, ...]:
        self.asked.append(prune)
        return self.records[:1]


def cache_on(control: FakeControl) -> BuildKitCache:
    """The cache of that daemon."""
    stand_in: Any = control
    return BuildKitCache(stand_in)


EXPRESSIONS: dict[str, tuple[dict[str, tuple[str, ...]], list[str]]] = {
    "no filter": ({}, []),
    "a type": ({"type": ("regular",)}, ['type=="regular"']),
    "an id is a pattern": ({"id": ("^abc",)}, ['id~="^abc"']),
    "a description with commas and quotes": (
        {"description": ('a, "b" \\ c',)},
        ['description=="a, \\"b\\" \\\\ c"'],
    ),
    "values of one field are alternatives": (
        {"type": ("regular", "frontend")},
        ['type=="regular"', 'type=="frontend"'],
    ),
    "fields stand together": (
        {"type": ("regular", "frontend"), "id": ("a",)},
        ['type=="regular",id~="a"', 'type=="frontend",id~="a"'],
    ),
}


@pytest.mark.row("P12")
@pytest.mark.parametrize(("filters", "expected"), EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_filters_are_said_in_the_daemons_words(
    filters: dict[str, tuple[str, ...]], expected: list[str]
) -> None:
    assert list(expressions(Policy(filters=filters))) == expected


async def test_the_whole_policy_is_sent_and_what_went_is_added_up() -> None:
    control = FakeControl()
    policy = Policy(
        all=True,
        keep=timedelta(hours=1),
        reserved_space=1,
        max_used_space=2,
        min_free_space=3,
        filters={"type": ("regular",)},
    )
    freed = await cache_on(control).prune(policy)
    assert (freed.size, freed.ids) == (10, ("a",))
    assert control.asked == [Prune(('type=="regular"',), True, 3600.0, 1, 2, 3)]
    assert await cache_on(control).usage() == 15


@pytest.mark.row("P5")
@pytest.mark.parametrize("space", ["max_used_space", "min_free_space"])
@pytest.mark.parametrize("dry_run", [False, True], ids=["in earnest", "in a dry run"])
async def test_a_limit_is_not_sent_to_a_daemon_that_would_overlook_it(
    space: str, dry_run: bool
) -> None:
    control = FakeControl("v0.16.0")
    given: dict[str, Any] = {space: 1, "reserved_space": 1}
    with pytest.raises(
        Rejected, match=r"v0\.17 or later, and this worker has v0\.16\.0"
    ) as caught:
        await cache_on(control).prune(Policy(**given, dry_run=dry_run))
    assert caught.value.reason is Reason.FEATURE_UNSUPPORTED
    assert control.asked == []
    await cache_on(control).prune(Policy(reserved_space=1))
    assert [one.reserved_space for one in control.asked] == [1]


@pytest.mark.parametrize("dry_run", [False, True], ids=["in earnest", "in a dry run"])
async def test_a_description_is_not_sent_to_a_daemon_that_would_match_none(
    dry_run: bool,
) -> None:
    old, new = FakeControl("v0.13.2"), FakeControl("v0.14.0")
    policy = Policy(filters={"description": ("d",)}, dry_run=dry_run)
    with pytest.raises(
        Rejected, match=r"v0\.14 or later, and this worker has v0\.13\.2"
    ) as caught:
        await cache_on(old).prune(policy)
    assert caught.value.reason is Reason.FEATURE_UNSUPPORTED
    assert old.asked == []
    await cache_on(new).prune(policy)
    assert len(new.asked) == (0 if dry_run else 1)


async def test_a_dry_run_sends_no_prune() -> None:
    control = FakeControl()
    told = await cache_on(control).prune(Policy(dry_run=True))
    assert (told.size, told.ids, control.asked) == (10, ("a",), [])


async def test_a_daemon_that_is_not_there_is_not_waited_for_as_one_that_measures() -> None:
    class Hung(FakeControl):
        """One that measures for ever."""

        async def disk_usage(self) -> tuple[Record, ...]:
            await asyncio.Event().wait()
            raise AssertionError

    control = Hung()
    control.error = Unreachable("no answer in 5 s")
    with pytest.raises(Unavailable, match="no answer in 5 s"):
        await cache_on(control).usage()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (Unreachable("refused"), Unavailable, Reason.BUILDER_UNAVAILABLE),
        (TLSRefused("certificate"), Unavailable, Reason.TLS_FAILED),
        (SolveError("filters: parse error"), Failed, Reason.PRUNE_FAILED),
        (Unsupported("unknown method"), Rejected, Reason.FEATURE_UNSUPPORTED),
    ],
    ids=["nobody there", "another's certificate", "a filter it does not read", "no such call"],
)
async def test_what_goes_wrong_is_said_in_our_words(
    error: BuildKitError, kind: type[Error], reason: Reason
) -> None:
    control = FakeControl()
    control.error = error
    with pytest.raises(kind) as caught:
        await cache_on(control).usage()
    assert caught.value.reason is reason
    assert str(error) in caught.value.message
