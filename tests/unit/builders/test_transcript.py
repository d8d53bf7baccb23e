"""A classic build's text, read as steps."""

from imagewright.builders.transcript import Transcript
from imagewright.domain.progress import Progress

LINES = """Step 1/3 : FROM base
 ---> 8d7a6f5e4c3b
Step 2/3 : RUN echo one
 ---> Using cache
 ---> 0f1e2d3c4b5a
Step 3/3 : RUN echo two
 ---> Running in 112233445566
two
 ---> 665544332211
Successfully built 665544332211
"""


def heard(*pieces: str) -> Progress:
    """The progress after these pieces."""
    seconds = iter(range(1000))
    transcript, progress = Transcript(lambda: float(next(seconds))), Progress()
    for piece in pieces:
        progress.apply(transcript.read(piece))
    return progress


def test_steps_are_numbered_and_what_came_from_the_cache_is_known() -> None:
    progress = heard(LINES)
    names = [step.name for step in progress.steps.values()]
    assert names == ["[1/3] FROM base", "[2/3] RUN echo one", "[3/3] RUN echo two"]
    assert progress.cached_steps() == (1, 3)
    assert all(step.done for step in progress.steps.values())


def test_a_line_may_come_in_pieces_and_two_in_one() -> None:
    whole = heard(LINES).steps
    for size in (1, 7, 40):
        pieces = [LINES[at : at + size] for at in range(0, len(LINES), size)]
        found = heard(*pieces).steps
        assert {key: step.name for key, step in found.items()} == {
            key: step.name for key, step in whole.items()
        }
        assert all(step.done for step in found.values())


def test_the_engines_own_line_ends_are_objects_of_their_own() -> None:
    progress = heard("Step 1/1 : RUN x", "\n", " ---> Running in 112233445566\n", "out\n")
    assert progress.current == "[1/1] RUN x"
    assert "out" in progress.log_tail("1/1")


def test_the_step_that_was_running_is_the_one_that_failed() -> None:
    seconds = iter(range(1000))
    transcript, progress = Transcript(lambda: float(next(seconds))), Progress()
    progress.apply(transcript.read("Step 1/2 : FROM base\nStep 2/2 : RUN exit 7\nno\n"))
    progress.apply(transcript.failed("returned a non-zero code: 7"))
    assert progress.failed_step() == "2/2"
    assert progress.name_of("2/2") == "[2/2] RUN exit 7"
    assert progress.log_tail("2/2").endswith("no\n")


def test_a_failure_before_the_first_step_has_no_step() -> None:
    progress = Progress()
    progress.apply(Transcript(lambda: 0.0).failed("no Dockerfile"))
    assert progress.failed_step() == ""
