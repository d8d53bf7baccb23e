"""What a person sees of a local build, on a terminal and in a log."""

import io

from imagewright.cli.display import LiveDisplay, PlainDisplay, make_display, step_row
from imagewright.domain.progress import Advance, Output, Step

RUN = "[1/1] RUN make"
EVENTS = (
    Advance(steps=(Step("i", "[internal] load", started=1.0, completed=2.0),)),
    Advance(steps=(Step("a", RUN),)),
    Advance(steps=(Step("a", RUN, started=1.0),)),
    Advance(outputs=(Output("a", b"one\ntw"), Output("a", b"o\nthree"))),
    Advance(steps=(Step("a", RUN, started=1.0, completed=3.5),)),
)


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_has_a_line_for_each_step_and_each_line_it_printed() -> None:
    stream = io.StringIO()
    with make_display(stream) as display:
        assert isinstance(display, PlainDisplay)
        for event in EVENTS:
            display.progress.apply(event)
            display.progress.apply(Advance(steps=event.steps))
    assert stream.getvalue().splitlines() == [
        "#1 [internal] load",
        "#2 [1/1] RUN make",
        "#2 one",
        "#2 two",
        "#2 DONE 2.5s",
        "#2 three",
    ]


def test_a_terminal_shows_steps_output_and_percent() -> None:
    stream = Terminal()
    with make_display(stream) as display:
        assert isinstance(display, LiveDisplay)
        for event in EVENTS:
            display.progress.apply(event)
    drawn = stream.getvalue()
    assert "RUN make" in drawn
    assert "three" in drawn
    assert "90 %" in drawn
    assert "[internal]" not in drawn


def test_a_row_says_how_a_step_is() -> None:
    rows = {
        "✗": Step("a", RUN, started=1.0, error="exit code: 1"),
        "cached": Step("a", RUN, cached=True),
        "2.5 s": Step("a", RUN, started=1.0, completed=3.5),
        "… [1/1] RUN make  4.0 s": Step("a", RUN, started=1.0),
    }
    for text, step in rows.items():
        assert text in step_row(step, now=5.0).plain
