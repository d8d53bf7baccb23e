"""What must be true of every run, whatever happened in it; a breach is a sentence.

By number: I1 an end is final, I2 attempts are numbered and one of them is alive, I3 no write is
made from a stale view, I4 the digest is the registry's, I5 nothing is left, I6 nothing holds a
delete up, I9 it ends in time, I10 writes are bounded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from devstack.builds import Body, Seen
from imagewright.api.buildstatus import FINAL
from tests.faults.apiproxy import Write

OVERLAP_SECONDS = 0.3
"""For so long a daemon may still be busy with ending what a dead client asked for."""


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended; all but the attempt is the same in every run of a workload."""

    phase: str
    reason: str = ""
    digest: str = ""
    failure: tuple[tuple[str, Any], ...] = ()
    attempt: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of a run."""

    end: End
    later: End
    """How it was once the operator had looked at everything again."""
    history: Sequence[Seen]
    writes: Sequence[Write]
    solves: Sequence[tuple[str, float, float | None]]
    """The daemon's records: id, begin and end in seconds; no end where it still runs."""
    most_live: int
    """Calls of Solve that were open at once."""
    pushed: str
    """The registry's digest of the name; empty where it has none, or nothing was to be pushed."""
    left: Sequence[str]
    """What should be gone and is not, in words."""
    complaints: Sequence[str]
    """Errors in the operators' logs."""


def end_of(body: Body | None) -> End:
    """How the object ended; gone is an end too."""
    if body is None:
        return End("Gone")
    status = body.get("status", {})
    told = status.get("conditions") or [{}]
    failure = status.get("failure", {})
    return End(
        status.get("phase", ""),
        told[0].get("reason", ""),
        status.get("imageDigest", ""),
        tuple(sorted(failure.items())),
        status.get("attempt", 0),
    )


def breaches(found: Evidence, calm: Evidence) -> list[str]:
    """Every invariant that this run broke; `calm` is the undisturbed run."""
    return [
        *_final(found),
        *_numbered(found),
        *_fenced(found),
        *_digest(found),
        *(f"I5: {one}" for one in found.left),
        *_unheld(found),
        *_bounded(found, calm),
        *_same(found, calm),
        *(f"The operator's log has an error: {one}" for one in found.complaints),
    ]


def _final(found: Evidence) -> Iterator[str]:
    ends: dict[int, str] = {}
    for seen in found.history:
        generation, phase = seen.status.get("observedGeneration", -1), seen.status.get("phase")
        if generation in ends and ends[generation] != phase:
            yield f"I1: generation {generation} was {ends[generation]}, and then {phase}."
        if phase in FINAL:
            ends[generation] = str(phase)
    if found.later != found.end:
        yield f"I1: the end was {found.end}, and later {found.later}."


def _numbered(found: Evidence) -> Iterator[str]:
    inputs = {
        seen.status["inputsDigest"] for seen in found.history if "inputsDigest" in seen.status
    }
    if found.most_live > len(inputs):
        yield f"I2: {found.most_live} solves were alive at once."
    refs = [ref for ref, _, _ in found.solves]
    if len(set(refs)) != len(refs):
        yield f"I2: an attempt was solved twice: {refs}."
    last: dict[str, float] = {}
    for ref, begun, over in found.solves:
        run = ref.rpartition("-")[0]
        if begun < last.get(run, 0.0) - OVERLAP_SECONDS:
            yield f"I2: {ref} began while the attempt before it still ran."
        last[run] = over if over is not None else float("inf")
    begins = [one for one in found.writes if one.landed and _phase(one) == "Running"]
    claims = [one.answer["status"]["claim"]["ref"] for one in begins if _claims(one)]
    if len(set(claims)) != len(claims):
        yield f"I2: an attempt was claimed twice: {claims}."


def _fenced(found: Evidence) -> Iterator[str]:
    for write in found.writes:
        if write.method == "PATCH" and not write.decided_on:
            yield f"I3: {write.path} was written without the version that it was decided on."


def _digest(found: Evidence) -> Iterator[str]:
    if found.end.phase == "Succeeded" and found.end.digest != found.pushed:
        yield f"I4: the status says {found.end.digest}, the registry {found.pushed}."


def _unheld(found: Evidence) -> Iterator[str]:
    for seen in found.history:
        meta = seen.body["metadata"]
        if meta.get("finalizers"):
            yield f"I6: a delete would wait for {meta['finalizers']}."


def _bounded(found: Evidence, calm: Evidence) -> Iterator[str]:
    most = 2 * len(calm.writes) + 2
    if len(found.writes) > most:
        yield f"I10: {len(found.writes)} writes, where {most} would do."


def _same(found: Evidence, calm: Evidence) -> Iterator[str]:
    if found.end != calm.end:
        yield f"The end is {found.end}; undisturbed it is {calm.end}."
    if found.end.attempt > calm.end.attempt + 1:
        yield f"It took {found.end.attempt} attempts; undisturbed it takes {calm.end.attempt}."


def _phase(write: Write) -> str:
    return str(write.answer.get("status", {}).get("phase", ""))


def _claims(write: Write) -> bool:
    return "claim" in write.body.get("status", {}) and "claim" in write.answer["status"]
