"""Specs of prunes: what is refused with which sentence, what is taken, and that CEL can say it."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from imagewright.api.buildcacheprune import BuildCachePruneSpec
from imagewright.api.crd import BUILD_CACHE_PRUNE, crd_of
from tests.integration.test_prune import REFUSED
from tests.unit.api.test_rules import rules

SERVER_WORDS = {
    "an unknown type",
    "an unknown filter",
    "no cache at all",
    "the same pool twice",
}
"""Here the API server has words of its own."""
# The zones themselves are known to the API server alone; here the name's form must do.
SERVER_ALONE = {"an unknown time zone", "the same pool twice"}
ZONE = {"schedule": "0 3 * * *"}


def refused(spec: dict[str, Any]) -> str:
    """What is said of the spec; empty where it is taken."""
    try:
        BuildCachePruneSpec.model_validate(spec)
    except ValidationError as error:
        return "\n".join(fault["msg"] for fault in error.errors())
    return ""


@pytest.mark.parametrize("name", sorted(set(REFUSED) - SERVER_ALONE))
def test_what_the_api_server_refuses_is_refused_here_too(name: str) -> None:
    spec, sentence = REFUSED[name]
    said = refused(spec)
    assert said
    if name not in SERVER_WORDS:
        assert sentence in said


TAKEN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "bytes": {"reservedSpace": "0", "maxUsedSpace": "999999999999999999"},
    "every unit": {"reservedSpace": "1k", "maxUsedSpace": "999Pi", "minFreeSpace": "20Gi"},
    "Go's durations": {"keepDuration": "1h30m0.5s"},
    "an age by the engine's name": {"filters": {"until": "48h"}},
    "ids of records": {"filters": {"id": ["^5qhbt87", "wclczeruepb9lbwlt16yj4bnu", "bnu$"]}},
    "a description of a step": {"filters": {"description": ['mount / from exec "a, b"']}},
    "lists and steps": {"schedule": "0,30 */2,9-17 1-7 JAN-Mar,12 mon,7"},
    "a word": {"schedule": "@weekly"},
    "a long time zone": {**ZONE, "timeZone": "America/Argentina/Buenos_Aires"},
    "a time zone with a sign": {**ZONE, "timeZone": "Etc/GMT+5"},
    "workers by their addresses": {"workers": ["unix:///run/b.sock", "tcp://10.0.0.1:1234"]},
}


@pytest.mark.parametrize("spec", TAKEN.values(), ids=TAKEN)
def test_what_people_really_write_is_taken(spec: dict[str, Any]) -> None:
    assert refused(spec) == ""


MORE: dict[str, dict[str, Any]] = {
    "a size beyond 64 bits": {"reservedSpace": "9999P"},
    "a size with a line's end": {"reservedSpace": "1Gi\n"},
    "less than nothing": {"keepDuration": "-1h"},
    "a pool in capitals": {"pools": ["A"]},
    "every 0 minutes": {"schedule": "*/0 * * * *"},
    "an hour too many": {"schedule": "0 24 * * *"},
    "a month too many": {"schedule": "0 0 1 13 *"},
    "the eighth day of the week": {"schedule": "0 0 * * 8"},
}


@pytest.mark.row("P7")
@pytest.mark.parametrize("spec", MORE.values(), ids=MORE)
def test_what_is_out_of_bounds_is_refused(spec: dict[str, Any]) -> None:
    assert refused(spec)


RULES = rules(crd_of(BUILD_CACHE_PRUNE))


def test_every_rule_of_the_schema_is_met_by_some_refusal() -> None:
    said = "\n".join(
        refused(spec) for spec in [*(spec for spec, _ in REFUSED.values()), *MORE.values()]
    )
    assert [rule["message"] for rule in RULES if rule["message"] not in said] == []
    assert len(RULES) > 12


@pytest.mark.parametrize("rule", {rule["rule"]: rule for rule in RULES}.values(), ids=str)
def test_a_rule_is_one_that_the_api_server_can_judge(rule: dict[str, str]) -> None:
    assert not re.search(r"\(\?[=!<]|\\\\[1-9]|\\\\Z", rule["rule"])
    assert "self" in rule["rule"]
    assert rule["message"].endswith(".")
