"""Progress: what is made of the events of a build, however wild."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.domain.progress import TAIL_BYTES, Advance, Output, Progress, Step


def told(*steps: Step) -> Progress:
    """Progress after these steps, one event each."""
    progress = Progress()
    for step in steps:
        progress.apply(Advance(steps=(step,)))
    return progress


def printed(*chunks: bytes) -> Progress:
    """Progress after one step printed these pieces."""
    progress = told(Step("a", "[1/1] RUN x", started=1.0))
    for chunk in chunks:
        progress.apply(Advance(outputs=(Output("a", chunk),)))
    return progress


INTERNAL = Step("i", "[internal] load metadata", started=1.0)
FIRST = Step("1", "[1/2] FROM scratch")
SECOND = Step("2", "[2/2] RUN x")


def test_the_percentage_never_falls_though_steps_are_added() -> None:
    progress = told(FIRST, Step("1", FIRST.name, started=1.0, completed=2.0))
    high = progress.percent
    assert high == 90
    progress.apply(Advance(steps=(SECOND,)))
    assert progress.percent == high


def test_steps_of_the_builder_itself_do_not_count() -> None:
    assert told(INTERNAL).percent == 0
    assert told(INTERNAL, FIRST, SECOND, Step("1", FIRST.name, cached=True)).percent == 45


def test_exporting_is_the_last_tenth() -> None:
    assert told(FIRST, Step("e", "exporting to image", started=1.0)).percent == 90


def test_a_step_that_starts_again_runs_again() -> None:
    looked_up = Step("2", SECOND.name, started=1.0, completed=2.0)
    works = Step("2", SECOND.name, started=3.0, completed=2.0)
    assert looked_up.done
    assert not works.done
    assert works.running
    assert told(looked_up, works).current == "[2/2] RUN x"


def test_only_numbered_steps_are_counted_as_cached() -> None:
    progress = told(INTERNAL, Step("1", FIRST.name, cached=True), SECOND)
    assert progress.cached_steps() == (1, 2)


def test_the_failed_step_is_the_one_that_failed_by_itself() -> None:
    stopped = Step("1", "[a 1/1] RUN sleep 9", error="exit code: 137: context canceled")
    failed = Step("2", "[b 1/1] RUN false", error="exit code: 1")
    assert told(stopped, failed).failed_step() == "2"
    assert told(stopped).failed_step() == "1"
    assert told(FIRST).failed_step() == ""


@pytest.mark.row("F70")
@pytest.mark.parametrize(
    ("chunks", "tail"),
    [
        ([b"one\ntw", b"o\n"], "one\ntwo\n"),
        ([b"\x1b[31mred\x1b[0m\n"], "red\n"),
        ([b"bad \xff byte\n"], "bad \ufffd byte\n"),
        ([b"10%\r20%\rdone\r\n"], "10%\n20%\ndone\n"),
        ([b"bell\x07 and null\x00\n"], "bell and null\n"),
        ([b"token https://me:pass@host/x\n"], "token https://***@host/x\n"),
    ],
    ids=[
        "pieces are joined",
        "colours are dropped",
        "bytes that are no text are marked",
        "carriage returns end lines",
        "control characters are dropped",
        "credentials are masked",
    ],
)
def test_the_tail_is_clean(chunks: list[bytes], tail: str) -> None:
    assert printed(*chunks).log_tail("a") == tail


@pytest.mark.row("F70")
def test_the_tail_is_bounded_and_begins_with_a_whole_line() -> None:
    progress = printed(*(b"line %d\n" % number for number in range(20_000)))
    tail = progress.log_tail("a")
    assert len(tail.encode()) <= TAIL_BYTES
    assert tail.startswith("line ")
    assert tail.endswith("line 19999\n")


@pytest.mark.row("F70")
def test_a_line_of_ten_megabytes_is_cut() -> None:
    tail = printed(b"x" * 10_000_000).log_tail("a")
    assert 0 < len(tail) <= TAIL_BYTES


def test_a_thousand_chatty_steps_are_forgotten_but_for_the_newest() -> None:
    progress = Progress()
    for number in range(1000):
        progress.apply(Advance(outputs=(Output(str(number), b"said\n"),)))
    assert progress.log_tail("999") == "said\n"
    assert len(progress._tails) <= 64


def test_a_listener_is_told_what_was_taken_in() -> None:
    heard: list[Advance] = []
    progress = Progress(listener=heard.append)
    advance = Advance(steps=(FIRST,))
    progress.apply(advance)
    assert heard == [advance]


@pytest.mark.row("F70")
def test_two_hundred_megabytes_of_output_are_held_in_a_few_kilobytes() -> None:
    progress = printed(*([b"0123456789abcde\n" * 4096] * 3200))
    assert len(progress.log_tail("a").encode()) <= TAIL_BYTES
    assert sum(len(kept) for kept in progress._tails.values()) <= 2 * TAIL_BYTES


@pytest.mark.row("F70")
@pytest.mark.parametrize(
    ("chunks", "tail"),
    [
        (["é\n".encode()[:1], "é\n".encode()[1:]], "é\n"),
        ([b"\x1b[3", b"1mred\n"], "red\n"),
        ([b"\x1b]0;title\x07shown\n"], "shown\n"),
        ([b"https://me:pa", b"ss@host/x\n"], "https://***@host/x\n"),
        ([b"\r", b"\nnext\n"], "\nnext\n"),
    ],
    ids=[
        "a letter in two pieces is one letter",
        "a colour in two pieces is dropped",
        "a terminal's title is dropped",
        "credentials in two pieces are masked",
        "a line's end in two pieces is one end",
    ],
)
def test_where_the_output_was_cut_does_not_matter(chunks: list[bytes], tail: str) -> None:
    assert printed(*chunks).log_tail("a") == tail


def test_the_step_that_spoke_last_is_shown_for_one_that_said_nothing() -> None:
    progress = printed(b"a said\n")
    progress.apply(Advance(outputs=(Output("b", b"b said\n"),)))
    assert progress.log_tail("silent") == "b said\n"
    progress.apply(Advance(outputs=(Output("a", b"again\n"),)))
    assert progress.log_tail() == "a said\nagain\n"
    assert Progress().log_tail("silent") == ""


def test_a_step_is_named_briefly_and_without_credentials() -> None:
    long = Step("1", f"[1/1] RUN curl https://me:pass@host/ {'é' * 400}", started=1.0)
    progress = told(long)
    assert "pass" not in progress.name_of("1")
    assert len(progress.name_of("1").encode()) <= 256
    assert progress.current == progress.name_of("1")
    assert progress.name_of("unheard of") == ""


times = st.none() | st.floats(0, 9)
any_steps = st.builds(
    Step,
    st.sampled_from("abcd"),
    st.sampled_from(["[1/2] RUN x", "[internal] load", "exporting to image", "pushing layers"]),
    st.booleans(),
    times,
    times,
    st.sampled_from(["", "exit code: 1"]),
)


@given(st.lists(any_steps))
def test_the_percentage_stays_in_its_bounds_and_never_falls(steps: list[Step]) -> None:
    progress = Progress()
    seen = [0]
    for step in steps:
        progress.apply(Advance(steps=(step,)))
        seen.append(progress.percent)
    assert seen == sorted(seen)
    assert seen[-1] <= 100
