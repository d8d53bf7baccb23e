"""Plays cases: the operator is struck, started anew, watched to the end, and questioned."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from devstack.images import digest_of
from tests.faults.daemonproxy import Call
from tests.faults.invariants import End, Evidence, breaches, end_of
from tests.faults.patterns import Case, cases
from tests.faults.scene import FROZEN_SECONDS, LOOK_SECONDS, Lane, Scene, moment, scene
from tests.faults.workloads import WORKLOADS, Workload, running, small

END_SECONDS = 3.0
"""From the last operator's start, or from the user's last act, to the end."""
SHARED_SECONDS = 3 * END_SECONDS
"""The same where the other tests have the machine too."""
FIRST_SECONDS = 20.0
LEFT_SECONDS = 5.0
"""After which nothing of a run may be left (I5)."""


@dataclass(frozen=True, slots=True)
class Run:
    """A case that was played."""

    case: Case
    breaches: Sequence[str]
    seconds: float
    struck: bool
    """Whether the point where it strikes was reached."""
    evidence: Evidence | None = None
    calls: int = 0
    events: int = 0


async def play(
    lane: Lane, case: Case, calm: Run | None = None, seconds: float = END_SECONDS
) -> Run:
    """Play a case; without a `calm` run there is nothing to compare its end with.

    So many `seconds` are given to the end from when the operator is back.
    """
    workload = WORKLOADS[case.workload]
    async with contextlib.AsyncExitStack() as opened:
        if workload.prunes:
            await opened.enter_async_context(lane.alone)
        stage = await opened.enter_async_context(
            scene(lane, workload.name, prunes=workload.prunes)
        )
        if workload.before is not None:
            await workload.before(stage)
        case.arm(stage)
        began = time.monotonic()
        try:
            evidence = await _story(stage, case, seconds)
        except (AssertionError, RuntimeError, TimeoutError) as error:
            return Run(case, [f"I9: {error!r}"], time.monotonic() - began, stage.struck)
        took = time.monotonic() - began
        faults = breaches(evidence, (calm.evidence if calm else None) or evidence)
        struck = stage.struck or 0 < stage.api.lose <= len(stage.api.events)
        if case.number and not struck:
            faults.append("The point where it strikes was never reached.")
        return Run(
            case, faults, took, struck, evidence, len(stage.daemon.calls), len(stage.api.events)
        )


async def _story(stage: Scene, case: Case, seconds: float) -> Evidence:
    workload = WORKLOADS[case.workload]
    stage.older = await stage.version()
    await _up(stage)
    again = asyncio.create_task(_again(stage, case))
    try:
        await stage.objects.create(stage.name, workload.spec(stage))
        if workload.act is not None:
            await workload.act(stage)
        end = await stage.objects.until(stage.name, workload.end, FIRST_SECONDS)
        # The end may be told by the very write, or be seen before the call, at which it strikes.
        await _looked(stage, workload)
        if stage.struck:
            late = end.at - max(await again, _acted(stage))
            assert late < seconds, f"it ended only {late:.1f} s after the operator was back."
    finally:
        again.cancel()
        await asyncio.wait([again])
    return await _question(stage, end_of(end.body if end.type != "DELETED" else None))


def _acted(stage: Scene) -> float:
    """When the user last did something: the object's newest generation, or its delete."""
    acts = {
        seen.body["metadata"].get("generation", 1): seen.at for seen in reversed(stage.history)
    }
    return max(acts.values())


async def _up(stage: Scene) -> None:
    """The first operator, until it watches or is struck on its way there."""
    first = stage.start()
    with contextlib.suppress(RuntimeError):
        await asyncio.to_thread(first.begun)
    assert stage.struck or first.alive, "the operator did not begin."


async def _again(stage: Scene, case: Case) -> float:
    """Once the operator is struck the next one; when it was up. A frozen view thaws afterwards."""
    waits = [asyncio.create_task(one.struck.wait()) for one in (stage.api, stage.daemon)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    before = len(stage.api.writes)
    second = stage.start()
    await asyncio.to_thread(second.begun)
    up = time.monotonic()
    if case.pattern == "stale":
        while len(stage.api.writes) == before and time.monotonic() < up + FROZEN_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)
        stage.api.thaw()
    return up


async def _question(stage: Scene, end: End) -> Evidence:
    """Everything that is known, now that the operator has looked at all that there is."""
    history = stage.history
    uid = history[0].body["metadata"]["uid"]
    left = await _left(stage, uid)
    pushed = ""
    if end.digest:
        pushed = await asyncio.to_thread(digest_of, stage.lane.stack, stage.image)
    events = [event for one in stage.operators for event in one.events()]
    return Evidence(
        end=end,
        later=end_of(await stage.object()),
        history=tuple(history),
        writes=tuple(stage.api.writes),
        solves=tuple(await _solves(stage, uid)),
        most_live=most_at_once(stage.daemon.calls, "Solve"),
        pushed=pushed,
        left=left,
        complaints=[str(one) for one in events if one.get("level") in {"error", "critical"}],
    )


async def _looked(stage: Scene, workload: Workload) -> None:
    """Another object is seen and told of: so was all that came before it."""
    last = f"{stage.name}-last"
    spec = {} if workload.prunes else small(stage)
    await stage.objects.create(last, {**spec, "suspend": True})
    await stage.objects.phase(last, "Suspended", FIRST_SECONDS)


async def _solves(stage: Scene, uid: str) -> list[tuple[str, float, float | None]]:
    return [
        (
            one["Ref"],
            moment(one["CreatedAt"]),
            moment(one["CompletedAt"]) if one.get("CompletedAt") else None,
        )
        for one in await stage.solves(uid)
    ]


def most_at_once(calls: Sequence[Call], name: str) -> int:
    """How many calls of that name were open at the same time."""
    spans = [(one.begun, one.over) for one in calls if one.name == name]
    return max((sum(a <= begun < b for a, b in spans) for begun, _ in spans), default=0)


async def _left(stage: Scene, uid: str) -> list[str]:
    """What is still there of the run, when it has had time to go."""
    deadline = time.monotonic() + LEFT_SECONDS
    while True:
        files = [
            str(path.relative_to(stage.folder))
            for folder in (stage.folder / "tmp", stage.folder / "sources" / "temp")
            if folder.exists()
            for path in folder.iterdir()
        ]
        busy = [ref for ref, _, over in await _solves(stage, uid) if over is None]
        left = [f"the file {one} is left." for one in files]
        left += [f"the daemon still has {ref}." for ref in busy]
        if running(stage):
            left.append("its step still runs.")
        if not left or time.monotonic() > deadline:
            return left
        await asyncio.sleep(LOOK_SECONDS)


async def calm_run(lane: Lane, workload: str) -> Run:
    """The undisturbed run of a workload. Raises AssertionError where it is not as it should be."""
    run = await play(lane, Case(workload))
    assert not run.breaches, f"{workload}/calm: {run.breaches}"
    return run


def cases_after(calm: Run) -> list[Case]:
    """All cases that the undisturbed run has points for."""
    assert calm.evidence is not None
    writes = len(calm.evidence.writes)
    return list(cases(calm.case.workload, writes, calm.calls, calm.events))
