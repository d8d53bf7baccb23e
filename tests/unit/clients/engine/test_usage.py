"""The cache's records in the shapes that engines have sent."""

from datetime import UTC, datetime
from typing import Any

import pytest

from imagewright.clients.engine.errors import EngineError
from imagewright.clients.engine.usage import CacheRecord, read_usage

RECORD: dict[str, Any] = {
    "ID": "abc",
    "Type": "regular",
    "Description": "mount / from exec",
    "InUse": False,
    "Shared": True,
    "Size": 42,
    "CreatedAt": "2026-11-24T12:48:27.135786755Z",
    "LastUsedAt": "2026-11-24T14:48:27+01:00",
    "UsageCount": 3,
}
READ = CacheRecord(
    id="abc",
    type="regular",
    size=42,
    parents=("p", "q"),
    description="mount / from exec",
    shared=True,
    created_at=datetime(2026, 11, 24, 12, 48, 27, 135786, tzinfo=UTC),
    last_used_at=datetime(2026, 11, 24, 13, 48, 27, tzinfo=UTC),
    usage_count=3,
)
PARENTS = {" Parents": ["p", "q"]}


@pytest.mark.row("X7")
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"BuildCache": [{**RECORD, **PARENTS}]}, id="parents after a blank"),
        pytest.param({"BuildCache": [{**RECORD, "Parents": ["p", "q"]}]}, id="or without one"),
        pytest.param(
            {"BuildCacheUsage": {"Items": [{**RECORD, **PARENTS}], "TotalCount": 1}}, id="newest"
        ),
        pytest.param(
            {
                "BuildCacheUsage": {"TotalCount": 1, "ActiveCount": 0},
                "BuildCache": [{**RECORD, **PARENTS}],
            },
            id="newest, with the records where they were before",
        ),
    ],
)
def test_records(answer: dict[str, Any]) -> None:
    assert read_usage(answer) == (READ,)


@pytest.mark.parametrize(
    ("found", "parents"),
    [
        pytest.param({"Parent": "p"}, ("p",), id="there was room for one"),
        pytest.param({"Parent": ""}, (), id="it may be empty"),
        pytest.param({" Parents": None}, (), id="or null"),
        pytest.param({}, (), id="or absent"),
    ],
)
def test_parents(found: dict[str, Any], parents: tuple[str, ...]) -> None:
    assert read_usage({"BuildCache": [{**RECORD, **found}]})[0].parents == parents


@pytest.mark.parametrize("time", [None, "", "0001-01-01T00:00:00Z"])
def test_a_time_that_never_was(time: str | None) -> None:
    assert read_usage({"BuildCache": [{**RECORD, "LastUsedAt": time}]})[0].last_used_at is None


@pytest.mark.parametrize(
    "answer", [{}, {"BuildCache": None}, {"BuildCache": []}, {"BuildCacheUsage": {}}]
)
def test_an_empty_cache(answer: dict[str, Any]) -> None:
    assert read_usage(answer) == ()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {"BuildCache": 1},
        {"BuildCache": [1]},
        {"BuildCache": [{}]},
        {"BuildCache": [{**RECORD, "CreatedAt": "yesterday"}]},
    ],
)
def test_what_is_no_such_answer(answer: object) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        read_usage(answer)
