"""One case of each kind; `make faults` plays all of them."""

import pytest

from tests.faults.patterns import PATTERNS, case_of
from tests.faults.scene import Lane
from tests.faults.sweep import SHARED_SECONDS, Run, calm_run, play
from tests.faults.workloads import WORKLOADS

KINDS = (
    pytest.param("success/crash/call-3", marks=pytest.mark.row("F4")),
    pytest.param("success/crash/write-1-before", marks=pytest.mark.row("F1")),
    pytest.param("success/crash/write-1", marks=pytest.mark.row("F2")),
    "success/stale/write-2",
    "success/unobserved/event-1",
    "failure/crash/write-2-before",
    "failure/stale/write-2",
    "failure/unobserved/event-2",
    "retry/crash/write-2",
    "retry/stale/write-2",
    "retry/unobserved/event-3",
    "cancel/crash/write-2-before",
    "cancel/stale/write-2",
    "cancel/unobserved/event-3",
    pytest.param("delete/crash/call-3", marks=pytest.mark.row("F6")),
    "delete/stale/call-4",
    "delete/unobserved/event-3",
    "supersede/crash/write-2",
    "supersede/stale/write-2",
    "supersede/unobserved/event-3",
    pytest.param("prune/crash/call-5", marks=pytest.mark.row("F6")),
    "prune/stale/write-2",
    "prune/unobserved/event-1",
)


@pytest.fixture(scope="module")
def calm() -> dict[str, Run]:
    """The undisturbed runs so far, by workload."""
    return {}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", KINDS)
async def test_whatever_happens_the_end_is_that_of_an_undisturbed_run(
    name: str, lane: Lane, calm: dict[str, Run]
) -> None:
    case = case_of(name)
    if case.workload not in calm:
        calm[case.workload] = await calm_run(lane, case.workload)
    run = await play(lane, case, calm[case.workload], SHARED_SECONDS)
    assert list(run.breaches) == []


def test_every_workload_meets_every_pattern() -> None:
    names = [kind if isinstance(kind, str) else str(kind.values[0]) for kind in KINDS]
    met = {(case.workload, case.pattern) for case in map(case_of, names)}
    assert met == {(workload, pattern) for workload in WORKLOADS for pattern in PATTERNS}
