"""What a spec lets go, from where, and what a prune by BuildKit's rules would take."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.api.buildcacheprune import BuildCachePruneSpec
from imagewright.domain.estimate import FREE_SPACE_NOTE, Record, estimate, least_used
from imagewright.domain.prune import Policy, Target, duration_of, make_policy, wanted
from tests.support.makers import NOW
from tests.support.prunemakers import ONE, SOURCE, TWO


def spec_of(**spec: Any) -> BuildCachePruneSpec:
    """The spec with these fields."""
    return BuildCachePruneSpec.model_validate(spec)


@pytest.mark.row("seed-15")
def test_a_policy_says_what_the_spec_says() -> None:
    spec = spec_of(
        all=True,
        filters={"type": ["regular"], "id": ["^a", "b$"], "description": ["x y"], "until": "48h"},
        reservedSpace="10Gi",
        maxUsedSpace="50G",
        minFreeSpace="1024",
        dryRun=True,
    )
    assert make_policy(spec) == Policy(
        all=True,
        filters={"type": ("regular",), "id": ("^a", "b$"), "description": ("x y",)},
        keep=timedelta(hours=48),
        reserved_space=10 << 30,
        max_used_space=50 * 10**9,
        min_free_space=1024,
        dry_run=True,
    )
    assert make_policy(spec_of()) == Policy()
    assert make_policy(spec_of(keepDuration="1h30m")).keep == timedelta(minutes=90)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("48h", 172800), ("1h30m", 5400), ("90s", 90), ("1.5h", 5400), ("0s", 0), ("1m0.5s", 60.5)],
)
def test_a_duration_is_as_long_as_go_takes_it_for(text: str, seconds: float) -> None:
    assert duration_of(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "48", "2d", "h", "1h ", "-1h", "1h30"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        duration_of(text)


ANYTHING = [ONE, TWO, SOURCE]
TARGETS: dict[str, tuple[dict[str, Any], list[Target]]] = {
    "by default: all of them": ({}, ANYTHING),
    "a worker: no other, and not the source cache": ({"workers": ["one"]}, [ONE]),
    "a pool: its workers": ({"pools": ["p"]}, [ONE, TWO]),
    "another pool: none": ({"pools": ["q"]}, []),
    "a worker of another pool: none": ({"pools": ["q"], "workers": ["one"]}, []),
    "build caches only": ({"include": ["buildCache"]}, [ONE, TWO]),
    "the source cache only": ({"include": ["sourceCache"]}, [SOURCE]),
    "a filter that no fetched source could match": ({"filters": {"id": ["a"]}}, [ONE, TWO]),
    "an age, which fetched sources have too": ({"filters": {"until": "1h"}}, ANYTHING),
}


@pytest.mark.parametrize(("spec", "expected"), TARGETS.values(), ids=TARGETS)
def test_which_caches_are_meant(spec: dict[str, Any], expected: list[Target]) -> None:
    assert [target for target in ANYTHING if wanted(spec_of(**spec), target)] == expected


def used(hours: float) -> float:
    """So many hours ago, in seconds since the epoch."""
    return (NOW - timedelta(hours=hours)).timestamp()


BASE = Record("base", 10, last_used=used(3), usage_count=5)
LAYER = Record("layer", 20, parents=("base",), last_used=used(2), usage_count=2)
MOUNT = Record("mount", 30, "exec.cachemount", "cached mount /c", last_used=used(1), usage_count=1)
FRONTEND = Record("front", 40, "frontend", last_used=used(9))
BUSY = Record("busy", 50, in_use=True, last_used=used(9))
SHARED = Record("shared", 60, shared=True, last_used=used(9))
ALL = (BASE, LAYER, MOUNT, FRONTEND, BUSY, SHARED)

ESTIMATES: dict[str, tuple[Policy, set[str]]] = {
    "no limits: all but frontends, shared ones and those in use": (
        Policy(),
        {"base", "layer", "mount"},
    ),
    "all: frontends and shared ones too, what is in use never": (
        Policy(all=True),
        {"base", "layer", "mount", "front", "shared"},
    ),
    "a type": (Policy(filters={"type": ("exec.cachemount",)}), {"mount"}),
    "two types": (
        Policy(filters={"type": ("exec.cachemount", "regular")}),
        {"base", "layer", "mount"},
    ),
    "the beginning of an id": (Policy(filters={"id": ("^la",)}), {"layer"}),
    "the end of an id": (Policy(filters={"id": ("er$",)}), {"layer"}),
    "a part of an id that is a word for a pattern": (Policy(filters={"id": ("a.e",)}), set()),
    "a description": (Policy(filters={"description": ("cached mount /c",)}), {"mount"}),
    "a part of a description": (Policy(filters={"description": ("cached",)}), set()),
    "two filters that no record matches both": (
        Policy(filters={"type": ("regular",), "description": ("cached mount /c",)}),
        set(),
    ),
    "an age": (Policy(keep=timedelta(hours=1.5)), {"base", "layer"}),
    "an age that spares the child: its parent stays too": (
        Policy(keep=timedelta(hours=2.5)),
        set(),
    ),
    "more room than is used": (Policy(max_used_space=1000), set()),
    # 150 bytes count, since shared ones do not.
    "just more room than is used": (Policy(max_used_space=151), set()),
    "as much room as is used: one goes": (Policy(max_used_space=150), {"mount"}),
    "less room: until less is used": (Policy(max_used_space=110), {"mount", "layer"}),
    "room for nothing": (Policy(max_used_space=1), {"base", "layer", "mount"}),
    "what is reserved wins over what may be used": (
        Policy(max_used_space=1, reserved_space=1000),
        set(),
    ),
    "reserved alone": (Policy(reserved_space=110), {"mount", "layer"}),
    "free space alone cannot be known": (Policy(min_free_space=1), set()),
}


@pytest.mark.parametrize(("policy", "gone"), ESTIMATES.values(), ids=ESTIMATES)
def test_a_dry_run_foretells(policy: Policy, gone: set[str]) -> None:
    told = estimate(ALL, policy, NOW)
    assert set(told.ids) == gone
    assert told.size == sum(one.size for one in ALL if one.id in gone)
    assert (told.note == FREE_SPACE_NOTE) is bool(policy.min_free_space)


def test_a_record_goes_after_what_is_built_upon_it() -> None:
    told = estimate(ALL, Policy(), NOW)
    assert told.ids.index("layer") < told.ids.index("base")


def test_age_and_use_weigh_alike() -> None:
    old_and_used = Record("a", last_used=used(9), usage_count=9)
    new_and_unused = Record("b", last_used=used(1), usage_count=0)
    old_and_unused = Record("c", last_used=used(8), usage_count=0)
    never = Record("d")
    ordered = least_used([old_and_used, new_and_unused, old_and_unused, never])
    assert [one.id for one in ordered][:2] == ["d", "c"]


RECORDS = st.lists(
    st.builds(
        Record,
        id=st.text("abcdef", min_size=1, max_size=4),
        size=st.integers(0, 100),
        type=st.sampled_from(["regular", "internal", "exec.cachemount"]),
        parents=st.lists(st.text("abcdef", min_size=1, max_size=4), max_size=2).map(tuple),
        in_use=st.booleans(),
        shared=st.booleans(),
        last_used=st.none() | st.floats(1.0, 2e9),
        usage_count=st.integers(0, 5),
    ),
    max_size=12,
    unique_by=lambda one: one.id,
)
POLICIES = st.builds(
    Policy,
    all=st.booleans(),
    keep=st.timedeltas(timedelta(0), timedelta(days=9)),
    reserved_space=st.integers(0, 300),
    max_used_space=st.integers(0, 300),
)


@pytest.mark.timeout(30)
@given(RECORDS, POLICIES)
def test_whatever_the_records_none_goes_twice_and_none_in_use(
    records: list[Record], policy: Policy
) -> None:
    told = estimate(records, policy, NOW)
    known = {one.id: one for one in records}
    assert len(set(told.ids)) == len(told.ids)
    assert not any(known[name].in_use for name in told.ids)
    assert told.size == sum(known[name].size for name in told.ids)
    gone: set[str] = set()
    for name in told.ids:
        built_upon = {one.id for one in records if name in one.parents} - {name}
        assert built_upon <= gone
        gone.add(name)
