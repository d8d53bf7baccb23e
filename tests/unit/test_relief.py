"""A full disk: whose words for it are believed, and how often a prune is tried."""

import pytest

from imagewright.api.reason import Reason
from imagewright.domain.outcome import Broken, Built, Outcome
from imagewright.domain.prune import Policy
from imagewright.ports import Failed, Unavailable
from imagewright.relief import TRIES, met_full_disk, relieve, told_again
from tests.support.pooling import a_worker
from tests.support.prunemakers import FakeCache

FULL = "head: standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("outcome", "met"),
    [
        (Broken(Reason.DISK_FULL, "Full."), True),
        (Broken(Reason.DISK_FULL, "Our own disk.", retryable=True), False),
        (Broken(Reason.BUILD_FAILED, "exit code: 1.", exit_code=1, log_tail=FULL), False),
        (Built(), False),
    ],
    ids=[
        "the worker says so",
        "the operator's own disk is full",
        "a step printed so",
        "a build that ended well",
    ],
)
def test_only_the_workers_own_words_empty_its_cache(outcome: Outcome, met: bool) -> None:
    assert met_full_disk(outcome) is met


@pytest.mark.parametrize(
    ("log", "reason"),
    [(FULL, Reason.DISK_FULL), ("exit 1", Reason.BUILD_FAILED)],
    ids=["says so", "says something else"],
)
def test_after_a_full_disk_a_step_is_believed_that(log: str, reason: Reason) -> None:
    outcome = told_again(Broken(Reason.BUILD_FAILED, "Broken.", exit_code=1, log_tail=log))
    assert isinstance(outcome, Broken)
    assert outcome.reason is reason
    assert ("give it a larger one" in outcome.message) is (reason is Reason.DISK_FULL)


async def test_what_no_build_uses_is_pruned_once() -> None:
    cache = FakeCache()
    await relieve(a_worker("w", caches={"buildkit": cache}))
    assert cache.policies == [Policy()]


@pytest.mark.parametrize(
    ("error", "times"),
    [(Failed("No space left."), TRIES), (Unavailable("It is gone."), 1)],
    ids=["a daemon that cannot write down what it removes", "a daemon that does not answer"],
)
async def test_a_prune_that_fails_is_tried_again_where_that_may_help(
    error: Exception, times: int
) -> None:
    cache = FakeCache(error=error)
    await relieve(a_worker("w", caches={"buildkit": cache}), pause_seconds=0)
    assert len(cache.policies) == times
