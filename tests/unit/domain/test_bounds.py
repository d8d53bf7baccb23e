"""What a build says reaches the status clean, and small as JSON, whatever it says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.api.reason import Reason
from imagewright.domain.decision import Finish
from imagewright.domain.outcome import Broken
from imagewright.domain.progress import Advance, Output, Progress, Step
from imagewright.domain.redact import clip, json_bytes, printable, tail
from imagewright.domain.reference import InvalidReference, parse
from imagewright.domain.status import summarize
from tests.support.makers import NOW, a_build, some_facts

RUNNING = {"phase": "Running", "attempt": 1, "startTime": NOW.isoformat()}


def status_of(broken: Broken) -> str:
    """The status of this failure as JSON."""
    facts = some_facts(a_build(status=RUNNING))
    return json.dumps(summarize(facts, Finish(broken)).dump(), ensure_ascii=False)


@pytest.mark.row("F71")
@pytest.mark.parametrize(
    "letter", ['"', "\\", "\n", "\t", "\x1b", "\x00", "é", "字", "a"], ids=repr
)
def test_a_status_is_small_as_json_whatever_is_printed(letter: str) -> None:
    progress = Progress()
    step = Step("a", "RUN " + letter * 500, started=1.0)
    progress.apply(Advance((step,), (Output("a", letter.encode() * 20_000),)))
    name, end = progress.name_of("a"), progress.log_tail("a")
    told = status_of(Broken(Reason.BUILD_FAILED, letter * 100_000, name, 1, 1, log_tail=end))
    assert len(told.encode()) <= 8192


@pytest.mark.row("S20")
def test_no_terminal_escape_reaches_a_message_or_a_step() -> None:
    told = status_of(Broken(Reason.BUILD_FAILED, "\x1b[2Jforged", "RUN \x1b[31mred"))
    assert "\\u001b" not in told
    assert "forged" in told
    progress = Progress()
    progress.apply(Advance((Step("a", "RUN \x1b[31mred", started=1.0),)))
    assert (progress.current, progress.name_of("a")) == ("RUN red", "RUN red")


@pytest.mark.row("S14")
@pytest.mark.parametrize("before", [b"", b"a line\n"], ids=["on the only line", "on a line"])
def test_a_credential_that_is_cut_in_half_is_not_shown(before: bytes) -> None:
    half, colour = b"secretpw@h/", b"\x1b[31mx\x1b[0m"
    noise = colour * 600
    output = before + b"https://me:" + half + noise
    output += b"y" * (6144 - len(half) - len(noise))
    progress = Progress()
    progress.apply(Advance((), (Output("a", output),)))
    assert "secretpw" not in progress.log_tail("a")
    assert progress.log_tail("a")


texts = st.text().map(printable)


@given(texts, st.integers(min_value=8, max_value=64))
def test_what_is_clipped_fits_as_json(text: str, limit: int) -> None:
    assert json_bytes(text) == len(json.dumps(text, ensure_ascii=False).encode()) - 2
    assert json_bytes(clip(text, limit)) <= limit
    assert json_bytes(tail(text, limit)) <= limit


def test_brackets_hold_an_address_or_are_no_registry() -> None:
    assert parse("[::1]/a").registry == "[::1]"
    with pytest.raises(InvalidReference):
        parse("[0]/a")
