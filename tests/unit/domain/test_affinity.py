"""Which worker a key prefers, and when it has to take another one."""

from collections import Counter

import pytest

from imagewright.domain.affinity import Load, choose, ranked

WORKERS = [f"buildkitd-{number}" for number in range(4)]
KEYS = [f"registry.example/team/app-{number}" for number in range(1000)]


def test_a_key_ranks_the_workers_the_same_whoever_asks_in_whatever_order() -> None:
    assert ranked("app", WORKERS) == ranked("app", reversed(WORKERS))
    assert sorted(ranked("app", WORKERS)) == WORKERS
    # Written down: another release that ranks otherwise would make every cache cold.
    assert ranked("registry.example/app", WORKERS)[0] == "buildkitd-3"


def test_keys_are_spread_evenly() -> None:
    shares = Counter(ranked(key, WORKERS)[0] for key in KEYS)
    assert all(200 < count < 300 for count in shares.values())


def test_a_worker_that_goes_moves_no_key_but_its_own_and_gets_them_back() -> None:
    before = {key: ranked(key, WORKERS)[0] for key in KEYS}
    after = {key: ranked(key, WORKERS[1:])[0] for key in KEYS}
    moved = {key for key in KEYS if before[key] != after[key]}
    assert moved == {key for key in KEYS if before[key] == WORKERS[0]}
    assert len({after[key] for key in moved}) == 3


CHOICES = {
    "the preferred one of four that do nothing": ((0, 0, 0, 0), 4, "a"),
    "the preferred one, though it builds already and the others do not": ((1, 0, 0, 0), 4, "a"),
    "the next one, where the preferred one is more than half full and ahead": (
        (2, 0, 0, 0),
        4,
        "b",
    ),
    "the preferred one, where all are as busy": ((3, 3, 3, 3), 4, "a"),
    "the preferred one, a little ahead of busy ones": ((3, 2, 3, 2), 4, "a"),
    "the next one, where the preferred one is full": ((4, 1, 1, 1), 4, "b"),
    "the third, where the second is full too": ((4, 4, 1, 1), 4, "c"),
    "nobody, where all are full": ((4, 4, 4, 4), 4, None),
    "any with a slot, where each with one is too far ahead": ((2, 2, 0, 0), (4, 4, 0, 0), "a"),
    "the only slot of workers with one each": ((1, 1, 1, 0), 1, "d"),
}


@pytest.mark.parametrize(("leased", "slots", "expected"), CHOICES.values(), ids=list(CHOICES))
def test_the_choice(
    leased: tuple[int, ...], slots: int | tuple[int, ...], expected: str | None
) -> None:
    each = slots if isinstance(slots, tuple) else (slots,) * len(leased)
    loads = [Load(*one) for one in zip("abcd", leased, each, strict=True)]
    assert choose("abcd", loads) == expected


def test_nobody_is_chosen_of_no_workers() -> None:
    assert choose((), []) is None
