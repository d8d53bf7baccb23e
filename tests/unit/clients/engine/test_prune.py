"""What is asked of which engine, so that it removes no more than it should."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from imagewright.clients.engine.errors import EngineError, Unsupported
from imagewright.clients.engine.prune import Prune, Pruned, read_pruned

OLD, BEFORE, SINCE = (1, 41), (1, 47), (1, 48)


def query(prune: Prune, api: tuple[int, int]) -> dict[str, Any]:
    found: dict[str, Any] = dict(prune.query(api))
    if "filters" in found:
        found["filters"] = json.loads(found["filters"])
    return found


@pytest.mark.parametrize(
    ("prune", "api", "expected"),
    [
        pytest.param(Prune(), OLD, {}, id="anything that is not held"),
        pytest.param(Prune(all=True), SINCE, {"all": "1"}, id="anything"),
        pytest.param(
            Prune(reserved_space=5), SINCE, {"reserved-space": "5"}, id="an amount to keep"
        ),
        pytest.param(
            Prune(reserved_space=5), BEFORE, {"keep-storage": "5"}, id="by the name it had before"
        ),
        pytest.param(
            Prune(reserved_space=1, max_used_space=2, min_free_space=3),
            SINCE,
            {"reserved-space": "1", "max-used-space": "2", "min-free-space": "3"},
            id="all limits",
        ),
        pytest.param(
            Prune(keep=timedelta(days=2, milliseconds=5)),
            OLD,
            {"filters": {"until": ["172800005ms"]}},
            id="an age is a duration",
        ),
        pytest.param(
            Prune(filters={"description": 'mount / from "exec" ü'}),
            (1, 46),
            {"filters": {"description": ['"mount / from \\"exec\\" ü"']}},
            marks=pytest.mark.row("P12"),
            id="a value is quoted inside of its filter",
        ),
        pytest.param(
            Prune(filters={"id": "^ab", "type": "regular"}),
            OLD,
            {"filters": {"id": ['"^ab"'], "type": ['"regular"']}},
            id="several filters",
        ),
        pytest.param(
            Prune(filters={"shared": "", "private": ""}),
            OLD,
            {"filters": {"shared": [], "private": []}},
            marks=pytest.mark.row("P13"),
            id="bare filters",
        ),
    ],
)
def test_the_query(prune: Prune, api: tuple[int, int], expected: dict[str, Any]) -> None:
    assert query(prune, api) == expected


@pytest.mark.row("P5")
@pytest.mark.parametrize(
    "prune", [Prune(reserved_space=5, max_used_space=1), Prune(reserved_space=5, min_free_space=1)]
)
@pytest.mark.parametrize("api", [OLD, BEFORE])
def test_a_limit_that_would_be_overlooked_is_not_sent(prune: Prune, api: tuple[int, int]) -> None:
    with pytest.raises(Unsupported, match="everything would be removed"):
        prune.query(api)


def test_a_description_that_would_match_nothing_is_not_sent() -> None:
    with pytest.raises(Unsupported, match="matches nothing"):
        Prune(filters={"description": "x"}).query((1, 45))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param({"reserved_space": -1}, "less than nothing", id="less space than none"),
        pytest.param({"keep": timedelta(-1)}, "less than nothing", id="an age to come"),
        pytest.param(
            {"filters": {"label": "a"}},
            "would remove everything",
            marks=pytest.mark.row("P15"),
            id="a label",
        ),
        pytest.param({"filters": {"inuse": ""}}, "never removed", id="use"),
        pytest.param({"filters": {"parent": "a"}}, "never matches", id="a parent"),
        pytest.param({"filters": {"mutable": ""}}, "no filter mutable", id="one that is none"),
        pytest.param({"filters": {"shared": "true"}}, "takes no value", id="a bare one's value"),
        pytest.param({"filters": {"id": ""}}, "needs a value", id="a value that is missing"),
    ],
)
def test_what_would_not_do_what_it_says_is_refused(options: Mapping[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Prune(**options)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(
            {"CachesDeleted": ["a", "b"], "SpaceReclaimed": 7}, Pruned(("a", "b"), 7), id="some"
        ),
        pytest.param({"CachesDeleted": None, "SpaceReclaimed": 0}, Pruned(), id="nothing is null"),
        pytest.param({"CachesDeleted": [], "SpaceReclaimed": 0}, Pruned(), id="or nothing"),
    ],
)
def test_what_went(answer: object, expected: Pruned) -> None:
    assert read_pruned(answer) == expected


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"CachesDeleted": None}, {"CachesDeleted": 1, "SpaceReclaimed": 0}]
)
def test_what_does_not_say_what_went(answer: object) -> None:
    with pytest.raises(EngineError, match="does not say what went"):
        read_pruned(answer)
