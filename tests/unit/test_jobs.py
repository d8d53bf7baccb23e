"""The work of this process: what an attempt comes to, and that a slot always goes back."""

import asyncio
import time
from collections.abc import Callable

import pytest

from imagewright.api.reason import Reason
from imagewright.backend import Backend
from imagewright.builders.memory import MemoryBuilder
from imagewright.domain.facts import Ended, Prepared, Preparing, Running
from imagewright.domain.outcome import Broken, Built
from imagewright.domain.plan import BUILDKIT, Git, Inline, Plan
from imagewright.domain.progress import Advance, Output, Progress, Step
from imagewright.jobs import Jobs, Task, attempt, broken_by
from imagewright.metrics import Metrics
from imagewright.pools.entry import Lease
from imagewright.ports import Error, Failed, Rejected, Unavailable
from imagewright.scheduler import Scheduler
from tests.support.makers import NOW, UID
from tests.support.parts import FakeKeyring, FakeSources, FakeStore
from tests.support.pooling import a_pool, a_worker, an_entry
from tests.support.prunemakers import FakeCache

PLAN = Plan(Inline({"Dockerfile": b"FROM scratch\n"}), images=("r.example/a:1",))
STEP = Step("1", "[1/1] RUN x", started=1.0, error="exit code: 7")


def task(plan: Plan) -> Task:
    """The plan to be built, with an empty keyring."""
    return Task("inputs", plan, FakeKeyring())


class Bench:
    """Jobs on one worker with so many slots."""

    def __init__(self, slots: int = 1) -> None:
        self.builder, self.store = MemoryBuilder(), FakeStore()
        backend = Backend({BUILDKIT: self.builder}, self.store, FakeSources())
        self.worker = a_worker("w", slots, backend)
        metrics = self.metrics = Metrics()
        self.scheduler = Scheduler([a_pool(self.worker)], time.monotonic, metrics)
        self.woken: list[str] = []
        self.jobs = Jobs(self.woken.append, lambda: NOW, metrics, stall_seconds=0.01)

    def lease(self, uid: str = UID) -> Lease:
        """A slot."""
        self.scheduler.enter("default", an_entry(uid, PLAN))
        return self.scheduler.take(uid)

    def begin(self) -> None:
        """Build."""
        self.jobs.begin(UID, task(PLAN), "ref", self.lease())

    def prepare(self) -> None:
        """Resolve a branch."""
        plan = Plan(Git("https://git.example/app", "main"))
        self.jobs.prepare(UID, task(plan), self.lease())

    async def until(self, right: Callable[[], object]) -> None:
        """Let the loop turn until it is right."""
        async with asyncio.timeout(1.5):
            while not right():
                await asyncio.sleep(0)


def state(bench: Bench) -> object:
    """What the job does."""
    job = bench.jobs.look(UID)
    return job.state if job else None


async def test_a_build_runs_then_has_ended_and_its_slot_is_free() -> None:
    bench = Bench()
    bench.begin()
    assert isinstance(state(bench), Running)
    await bench.until(lambda: bench.woken)
    ended = state(bench)
    assert isinstance(ended, Ended)
    assert isinstance(ended.outcome, Built)
    await bench.until(lambda: bench.worker.leased == 0)
    bench.jobs.forget(UID)
    assert state(bench) is None


async def test_a_resolved_build_keeps_its_slot_for_what_comes_next() -> None:
    bench = Bench()
    bench.prepare()
    assert isinstance(state(bench), Preparing)
    await bench.until(lambda: bench.woken)
    assert isinstance(state(bench), Prepared)
    await asyncio.sleep(0)
    assert bench.worker.leased == 1
    plan = bench.jobs.plan_of(UID)
    assert plan is not None
    assert isinstance(plan.source, Git)
    assert len(plan.source.commit) == 40
    lease = bench.jobs.lease_of(UID)
    assert lease is not None
    bench.jobs.begin(UID, task(plan), "ref", lease)
    await bench.until(lambda: isinstance(state(bench), Ended))
    await bench.until(lambda: bench.worker.leased == 0)


@pytest.mark.row("seed-16")
@pytest.mark.parametrize(
    "turns",
    [0, 1, 2],
    ids=["before its first step", "while it runs or resolves", "when it is resolved"],
)
@pytest.mark.parametrize("what", [Bench.begin, Bench.prepare], ids=["a build", "a resolution"])
async def test_what_is_cancelled_gives_its_slot_back(
    what: Callable[[Bench], None], turns: int
) -> None:
    bench = Bench()
    bench.builder.go.clear()
    what(bench)
    for _ in range(turns):
        await asyncio.sleep(0)
    bench.jobs.cancel(UID)
    bench.jobs.cancel(UID)
    await bench.jobs.quiet()
    await bench.until(lambda: bench.worker.leased == 0)
    assert bench.jobs.uids() == ()
    assert bench.woken in ([], [UID])


async def test_a_slot_is_not_free_before_the_cancelled_build_has_really_ended() -> None:
    bench = Bench()
    bench.builder.go.clear()
    bench.begin()
    await bench.until(lambda: bench.builder.orders)
    bench.jobs.cancel(UID)
    assert state(bench) is None
    assert bench.worker.leased == 1
    await bench.until(lambda: bench.worker.leased == 0)
    assert bench.builder.cancelled == ["ref"]


async def test_when_the_lead_is_lost_all_that_runs_is_cancelled_at_once() -> None:
    bench = Bench()
    bench.builder.go.clear()
    bench.begin()
    await bench.until(lambda: bench.builder.orders)
    bench.jobs.cancel_all()
    assert bench.jobs.uids() == ()
    await bench.jobs.quiet()
    assert bench.builder.cancelled == ["ref"]


async def test_waiting_for_the_end_has_its_own_end() -> None:
    bench = Bench()
    bench.builder.go.clear()
    bench.begin()
    await bench.jobs.drained(0.01)
    assert isinstance(state(bench), Running)
    bench.builder.go.set()
    await bench.jobs.drained(1)
    assert isinstance(state(bench), Ended)


@pytest.mark.parametrize(
    ("error", "suspected"),
    [
        (Unavailable("The worker was lost."), True),
        (Unavailable("Not accepted.", Reason.TLS_FAILED), True),
        (Unavailable("It fell silent.", Reason.STALLED), True),
        (Unavailable("The registry is out.", Reason.REGISTRY_UNAVAILABLE), False),
        (Failed("x509: of a registry.", Reason.TLS_FAILED), False),
        (Failed("exit code: 1."), False),
    ],
    ids=[
        "a lost worker",
        "a refused certificate",
        "a silent worker",
        "a registry that is out",
        "a registry's certificate",
        "a broken build",
    ],
)
async def test_a_worker_is_suspected_for_its_own_faults_only(
    error: Error, suspected: bool
) -> None:
    bench = Bench()
    bench.builder.error = error
    bench.begin()
    await bench.until(lambda: isinstance(state(bench), Ended))
    assert bench.worker.up is not suspected


async def gone() -> frozenset[str]:
    """A daemon that is not there any more."""
    raise Unavailable("Refused.")


@pytest.mark.row("F12")
@pytest.mark.parametrize("what", [Bench.begin, Bench.prepare], ids=["a build", "a resolution"])
async def test_what_stalls_ends_gives_its_slot_back_and_may_be_tried_again(
    what: Callable[[Bench], None],
) -> None:
    bench = Bench()
    bench.builder.go.clear()
    bench.builder.resolving.clear()
    bench.worker.probe = gone
    what(bench)
    async with asyncio.timeout(1.5):
        while not bench.woken:
            await asyncio.sleep(0.001)
    ended = state(bench)
    assert isinstance(ended, Ended)
    assert isinstance(ended.outcome, Broken)
    assert (ended.outcome.reason, ended.outcome.retryable) == (Reason.STALLED, True)
    await bench.until(lambda: bench.worker.leased == 0)
    assert not bench.worker.up


@pytest.mark.row("F73")
async def test_a_fault_of_ours_while_it_resolves_ends_the_build_and_not_the_slot() -> None:
    bench = Bench()
    bench.builder.error = ZeroDivisionError("ours")  # type: ignore[assignment]
    bench.prepare()
    await bench.until(lambda: bench.woken)
    ended = state(bench)
    assert isinstance(ended, Ended)
    assert isinstance(ended.outcome, Broken)
    assert "The operator itself failed" in ended.outcome.message
    await bench.until(lambda: bench.worker.leased == 0)


async def test_a_full_disk_is_pruned_and_the_build_begun_again_once() -> None:
    bench, cache = Bench(), FakeCache()
    bench.worker.caches = {"buildkit": cache}
    bench.builder.error = Failed("Full.", Reason.DISK_FULL)
    bench.begin()
    await bench.until(lambda: bench.woken)
    assert [order.ref for order in bench.builder.orders] == ["ref", "ref-again"]
    assert len(cache.policies) == 1
    assert bench.metrics.registry.get_sample_value("imagebuild_disk_full_total") == 1
    assert state(bench) == Ended(Broken(Reason.DISK_FULL, "Full."))


@pytest.mark.parametrize(
    ("images", "again", "asked"),
    [
        (("r.example/b:1",), False, False),
        (("r.example/b:1", "r.example/a:1"), False, True),
        (("r.example/b:1",), True, True),
    ],
    ids=["other names only", "one name in common", "a second attempt"],
)
async def test_a_name_is_asked_after_only_where_somebody_else_may_push_it(
    images: tuple[str, ...], again: bool, asked: bool
) -> None:
    bench, other = Bench(slots=2), Plan(PLAN.source, images=images)
    bench.store.held = "sha256:another"
    bench.begin()
    bench.jobs.begin("b", Task("b", other, FakeKeyring(), again), "b", bench.lease("b"))
    await bench.until(lambda: set(bench.woken) == {UID, "b"})
    job = bench.jobs.look("b")
    assert job
    assert isinstance(job.state, Ended)
    assert isinstance(job.state.outcome, Built)
    assert [one.overtaken for one in job.state.outcome.pushed] == [asked] * len(images)


def progress() -> Progress:
    """Of a build whose step has failed."""
    found = Progress()
    found.apply(Advance((STEP,), (Output("1", b"oh no\n"),)))
    return found


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        (
            Failed("No.").at("1", 3, 7),
            Broken(Reason.BUILD_FAILED, "No.", STEP.name, 3, 7, log_tail="oh no\n"),
        ),
        (
            Failed("No.", Reason.DOCKERFILE_INVALID).at("", 2, None),
            Broken(Reason.DOCKERFILE_INVALID, "No.", STEP.name, 2, log_tail="oh no\n"),
        ),
        (
            Unavailable("Lost."),
            Broken(
                Reason.BUILDER_UNAVAILABLE,
                "Lost.",
                STEP.name,
                retryable=True,
                log_tail="oh no\n",
            ),
        ),
    ],
    ids=["a failed step is named", "a step is found by its error", "an outage may pass later"],
)
def test_an_error_is_told_with_what_the_progress_knows(error: Error, broken: Broken) -> None:
    assert broken_by(error, progress()) == broken


def test_an_error_before_any_step_has_no_log() -> None:
    assert broken_by(Rejected("No."), Progress()) == Broken(Reason.BUILD_FAILED, "No.")


@pytest.mark.row("seed-9")
async def test_a_bad_name_ends_an_attempt_before_anything_is_sent() -> None:
    bench = Bench()
    plan = Plan(Inline({}), images=("r.example/a@sha256:0",))
    outcome = await attempt(bench.worker.backend, ("ref", FakeKeyring()), plan, Progress())
    assert isinstance(outcome, Broken)
    assert (outcome.reason, outcome.retryable) == (Reason.INVALID_REFERENCE, False)
    assert bench.builder.orders == []


async def test_cancelling_an_attempt_is_no_outcome() -> None:
    bench = Bench()
    bench.builder.go.clear()
    task = asyncio.create_task(
        attempt(bench.worker.backend, ("ref", FakeKeyring()), PLAN, Progress())
    )
    await bench.until(lambda: bench.builder.orders)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_attempt_counts_what_came_from_the_cache() -> None:
    known = Progress()
    known.apply(Advance((Step("a", "[1/2] FROM x", cached=True), Step("b", "[2/2] RUN x"))))
    outcome = await attempt(Bench().worker.backend, ("ref", FakeKeyring()), PLAN, known)
    assert isinstance(outcome, Built)
    assert (outcome.cached_steps, outcome.total_steps) == (1, 3)


def test_an_outage_tells_what_ran_and_what_it_printed_last() -> None:
    known = Progress()
    known.apply(
        Advance(
            (Step("a", "[1/2] RUN x", started=1.0), Step("b", "[2/2] RUN y", started=2.0)),
            (Output("b", b"begun\n"), Output("a", b"other\n")),
        )
    )
    broken = broken_by(Unavailable("Lost."), known)
    assert (broken.step, broken.log_tail) == ("[2/2] RUN y", "begun\n")
