"""What those who wait are told, and how often: each word is a write to the API server."""

from imagewright.api.reason import Reason
from imagewright.domain.facts import Waiting
from imagewright.pools.pool import Pool, Worker

TOLD_SECONDS = 10.0
"""Between two words to one that waits."""
NEAR = 10
"""From this position on every step is worth a word; farther back only half the way is."""
WORDS = {"first": 10, "changed": 10, "moved": 1}
"""A second, from the front: to those who were told nothing yet, of another reason to wait, and of
steps forward. Each is an API write, and one that begins must not wait for the writes of those
behind; where builds are short, most begin before there is anything to tell."""


def message(pool: Pool, able: tuple[Worker, ...], reason: Reason) -> str:
    """Why a build waits that these workers could do, in a sentence."""
    terms = pool.terms
    if reason is Reason.NO_WORKER:
        return pool.trouble(able)
    if reason is Reason.PLATFORM_UNAVAILABLE:
        offered = ", ".join(sorted(terms.platforms))
        return (
            f"Pool {terms.name} builds for {offered} only: name another one in spec.pool, or "
            "leave out spec.platforms."
        )
    if reason is Reason.NAMESPACE_LIMIT:
        return (
            f"Waits for another build of this namespace to end: pool {terms.name} gives it "
            f"{terms.namespace_slots} slots at once."
        )
    return f"Waits for a slot of pool {terms.name}: all that could build it are taken."


def moved(told: Waiting, reason: Reason, position: int) -> bool:
    """Whether that is news enough to be written."""
    if reason is not told.reason:
        return True
    before = told.position
    if position <= NEAR:
        return position != before
    return position * 2 <= before or position >= before * 2
