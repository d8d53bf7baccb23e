"""The shell, with everything real but the cluster and the daemon."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from imagewright.api.reason import Reason
from imagewright.builders.memory import MemoryBuilder
from imagewright.domain.facts import Closing
from imagewright.domain.outcome import Built
from imagewright.domain.plan import Order, Plan
from imagewright.jobs import Jobs
from imagewright.metrics import Metrics
from imagewright.ports import Failed, Keyring, Report, Unavailable, WatchedKeyring
from imagewright.reconcile.build import BuildReconciler, World
from imagewright.reconcile.resync import Resync
from imagewright.reconcile.store import BUILDS, Store
from imagewright.reconcile.workqueue import WorkQueue
from imagewright.scheduler import Scheduler
from tests.support.makers import GIT, NOW, UID, FakeCluster, Told, a_body
from tests.support.parts import FakeKeyring, a_backend
from tests.support.pooling import a_pool, a_worker


class FaultyBuilder(MemoryBuilder):
    """A memory builder with a fault of its own: it raises what no builder may."""

    fault = "none"

    async def build(self, order: Order, keyring: Keyring, report: Report) -> Built:
        if order.ref.partition("-")[0] == self.fault:
            raise ZeroDivisionError("a fault of ours")
        return await super().build(order, keyring, report)


class Shell:
    """An operator without its edges; its clock stands still until it is moved."""

    def __init__(self, slots: int = 1) -> None:
        self.now = NOW
        self.notices = Told()
        self.cluster, self.builder, self.metrics = FakeCluster(), FaultyBuilder(), Metrics()
        self.queue = WorkQueue(self._work)
        self.store = Store(BUILDS, self.queue.add)
        self.jobs = Jobs(self.queue.add, self.clock, self.metrics)
        backend = a_backend(self.builder)
        self.worker = a_worker("w", slots, backend)
        self.pool = a_pool(self.worker, metrics=self.metrics)
        self.scheduler = Scheduler([self.pool], self.seconds, self.metrics)
        world = World(
            self.cluster,
            self.store,
            self.jobs,
            self.scheduler,
            self.notices,
            self.metrics,
            self.keyrings,
            self.clock,
            "me",
            chance=lambda: 1.0,
        )
        self.reconciler = BuildReconciler(world, self._look_in)
        self.keyring = FakeKeyring()
        self.looks: list[tuple[str, float]] = []

    def keyrings(self, namespace: str, plan: Plan) -> WatchedKeyring:
        return self.keyring

    def clock(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return self.now.timestamp()

    def apply(self, spec: dict[str, Any] | None = None, **metadata: Any) -> None:
        """A user creates an object, and the watch tells of it."""
        self.store.see(self.cluster.put(a_body(spec, **metadata)))

    def edit(self, generation: int, name: str = "one", **spec: Any) -> None:
        """A user changes it, and the watch tells of it."""
        self.store.see(self.cluster.edit(name, generation, **spec))

    def delete(self, name: str = "one") -> None:
        """A user deletes it, and the watch tells of it."""
        body = self.cluster.bodies.pop(name)
        self.store.drop(body["metadata"]["uid"])

    def status(self, name: str = "one") -> dict[str, Any]:
        """What is written about it."""
        found: dict[str, Any] = self.cluster.bodies[name]["status"]
        return found

    def phases(self) -> list[str]:
        """The phases that were written."""
        return [
            write["status"]["phase"] for write in self.cluster.writes if "phase" in write["status"]
        ]

    async def until(self, right: Callable[[], object]) -> None:
        """Let the loop turn, and those who wait be told where, until it is right."""
        async with asyncio.timeout(1.5):
            while not right():
                self.scheduler.lines["default"].tell()
                await asyncio.sleep(0)

    async def ended(self, phase: str, name: str = "one") -> None:
        """Until this phase is written."""
        await self.until(lambda: self.status(name).get("phase") == phase)

    async def _work(self, uid: str) -> None:
        await self.reconciler.reconcile(uid)

    async def _probe(self) -> None:
        return

    def _look_in(self, uid: str, seconds: float) -> None:
        self.looks.append((uid, seconds))
        if seconds <= 0:
            self.queue.add(uid)


@contextlib.asynccontextmanager
async def working(shell: Shell) -> AsyncIterator[Shell]:
    """The shell with its queue running."""
    running = asyncio.create_task(shell.queue.run())
    try:
        yield shell
    finally:
        for uid in shell.jobs.uids():
            shell.jobs.cancel(uid)
        await shell.jobs.quiet()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    """A shell with one slot, whose queue runs."""
    async with working(Shell()) as shell:
        yield shell


async def test_a_build_costs_two_writes(shell: Shell) -> None:
    shell.apply({"images": ["r.example/a:1"]})
    await shell.ended("Succeeded")
    assert shell.phases() == ["Running", "Succeeded"]
    assert len(shell.cluster.writes) == 2
    assert shell.notices.words == ["BuildStarted one", "BuildCompleted one"]
    await shell.until(lambda: shell.worker.leased == 0)
    assert shell.status()["images"][0]["name"] == "r.example/a"


async def test_the_same_object_again_costs_nothing(shell: Shell) -> None:
    shell.apply()
    await shell.ended("Succeeded")
    shell.store.see(shell.cluster.put(shell.cluster.bodies["one"]))
    await shell.queue.idle()
    assert len(shell.cluster.writes) == 2
    assert len(shell.builder.orders) == 1


async def test_git_is_resolved_before_it_is_claimed(shell: Shell) -> None:
    shell.cluster.bodies.clear()
    body = a_body()
    body["spec"] = {**GIT, "images": ["r.example/a:1"]}
    shell.store.see(shell.cluster.put(body))
    await shell.ended("Succeeded")
    assert len(shell.status()["source"]["revision"]) == 40
    assert shell.cluster.writes[0]["status"]["source"] == shell.status()["source"]


async def test_a_running_build_is_cancelled_by_a_delete(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply()
    await shell.until(lambda: shell.builder.orders)
    shell.delete()
    await shell.until(lambda: shell.builder.cancelled)
    await shell.until(lambda: shell.worker.leased == 0)
    assert shell.jobs.uids() == ()


async def test_the_third_of_three_waits_for_a_slot_and_the_oldest_is_next(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply(name="first", uid="1", creationTimestamp="2026-01-02T03:00:00Z")
    await shell.until(lambda: shell.builder.orders)
    shell.apply(name="young", uid="3", creationTimestamp="2026-01-02T03:02:00Z")
    shell.apply(name="old", uid="2", creationTimestamp="2026-01-02T03:01:00Z")
    await shell.ended("Pending", "young")
    await shell.ended("Pending", "old")
    assert shell.status("old")["conditions"][0]["reason"] == "Queued"
    assert shell.status("old")["queue"] == {"position": 1, "reason": "Queued"}
    shell.builder.go.set()
    for name in ("first", "old", "young"):
        await shell.ended("Succeeded", name)
    assert [order.ref.partition("-")[0] for order in shell.builder.orders] == ["1", "2", "3"]


@pytest.mark.parametrize("spec", [{"cancel": True}, {"suspend": True}], ids=["cancel", "suspend"])
async def test_a_waiting_build_is_stopped_without_having_run(
    shell: Shell, spec: dict[str, Any]
) -> None:
    shell.builder.go.clear()
    shell.apply(name="first", uid="1")
    await shell.until(lambda: shell.builder.orders)
    shell.apply()
    await shell.ended("Pending")
    shell.edit(2, **spec)
    await shell.ended("Cancelled" if "cancel" in spec else "Suspended")
    shell.builder.go.set()
    await shell.ended("Succeeded", "first")
    await shell.queue.idle()
    assert len(shell.builder.orders) == 1


@pytest.mark.row("F23")
async def test_a_claim_that_comes_second_looks_again_and_builds_once(shell: Shell) -> None:
    body = shell.cluster.put(a_body())
    shell.cluster.put({**body, "metadata": {**body["metadata"], "labels": {"touched": "yes"}}})
    shell.store.see(body)
    await shell.ended("Succeeded")
    assert len(shell.builder.orders) == 1
    assert shell.phases() == ["Running", "Succeeded"]


@pytest.mark.row("F26")
async def test_an_object_that_is_gone_when_it_is_claimed_is_forgotten(shell: Shell) -> None:
    body = shell.cluster.put(a_body())
    shell.cluster.bodies.clear()
    shell.store.see(body)
    await shell.until(lambda: shell.store.get(UID) is None)
    await shell.queue.idle()
    assert shell.builder.orders == []
    await shell.until(lambda: shell.worker.leased == 0)


async def test_an_outage_is_met_by_another_attempt_after_a_pause(shell: Shell) -> None:
    shell.builder.error = Unavailable("The registry is out.", Reason.REGISTRY_UNAVAILABLE)
    shell.apply()
    await shell.ended("Pending")
    assert shell.status()["conditions"][0]["reason"] == "Retrying"
    assert shell.status()["lastAttempt"]["reason"] == "RegistryUnavailable"
    await shell.until(lambda: (UID, 1.0) in shell.looks)
    await shell.until(lambda: shell.worker.leased == 0)
    shell.builder.error = None
    shell.now += timedelta(seconds=1)
    shell.queue.add(UID)
    await shell.ended("Succeeded")
    assert shell.status()["attempt"] == 2
    assert "lastAttempt" not in shell.status()
    assert shell.notices.words == [
        "BuildStarted one",
        "BuildRetrying one",
        "BuildStarted one",
        "BuildCompleted one",
    ]


async def test_a_lost_worker_gets_no_build_until_it_answers(shell: Shell) -> None:
    shell.builder.error = Unavailable("The worker was lost.")
    shell.apply()
    await shell.ended("Pending")
    assert not shell.worker.up


async def test_a_failure_is_told_and_not_tried_again(shell: Shell) -> None:
    shell.builder.error = Failed("exit code: 7.").at("1", 3, 7)
    shell.apply()
    await shell.ended("Failed")
    assert shell.status()["failure"]["step"] == "[1/1] COPY . /"
    assert len(shell.builder.orders) == 1


async def test_an_edit_stops_the_old_inputs_and_builds_the_new(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply()
    await shell.until(lambda: shell.builder.orders)
    shell.edit(2, target="new")
    await shell.until(lambda: len(shell.builder.orders) == 2)
    await shell.until(lambda: shell.builder.cancelled == ["uid-1-1-1"])
    shell.builder.go.set()
    await shell.ended("Succeeded")
    assert shell.status()["observedGeneration"] == 2


async def test_going_down_lets_builds_end_and_then_interrupts(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply()
    await shell.until(lambda: shell.builder.orders)
    shell.reconciler.closing = Closing.DRAINING
    shell.apply(name="late", uid="2")
    await shell.queue.idle()
    assert len(shell.builder.orders) == 1
    shell.reconciler.closing = Closing.CLOSED
    shell.queue.add(UID)
    await shell.ended("Pending")
    assert shell.status()["conditions"][0]["reason"] == "Interrupted"
    await shell.until(lambda: shell.builder.cancelled == ["uid-1-1-1"])


async def test_a_claim_of_a_dead_operator_is_taken_over(shell: Shell) -> None:
    body = a_body()
    claim = {"holder": "dead", "worker": "w", "ref": "r"}
    shell.store.see(shell.cluster.put(body))
    await shell.ended("Succeeded")
    inputs = shell.status()["inputsDigest"]
    running = {"observedGeneration": 1, "phase": "Running", "attempt": 1, "claim": claim}
    again = {**a_body(name="two", uid="2"), "status": {**running, "inputsDigest": inputs}}
    shell.store.see(shell.cluster.put(again))
    await shell.ended("Succeeded", "two")
    assert shell.status("two")["attempt"] == 2


async def test_a_finished_object_is_deleted_when_its_time_is_over(shell: Shell) -> None:
    shell.apply({"ttlSecondsAfterFinished": 60})
    await shell.ended("Succeeded")
    await shell.until(lambda: (UID, 60.0) in shell.looks)
    shell.now += timedelta(seconds=61)
    shell.queue.add(UID)
    await shell.until(lambda: shell.cluster.deleted == ["team/one"])


async def test_a_list_finds_what_the_watch_has_missed(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply()
    await shell.until(lambda: shell.builder.orders)
    shell.cluster.bodies.clear()
    shell.cluster.put(a_body(name="unseen", uid="2"))
    await Resync(shell.cluster, shell.store, 300).once()
    await shell.until(lambda: shell.builder.cancelled)
    await shell.until(lambda: len(shell.builder.orders) == 2)


async def test_two_slots_run_two_builds_and_the_third_says_that_it_waits() -> None:
    async with working(Shell(slots=2)) as shell:
        shell.builder.go.clear()
        for number in ("1", "2", "3"):
            created = f"2026-01-02T03:0{number}:00Z"
            shell.apply(name=f"b{number}", uid=number, creationTimestamp=created)
        await shell.until(lambda: len(shell.builder.orders) == 2)
        await shell.ended("Pending", "b3")
        assert shell.worker.leased == 2
        assert "Waits for a slot of pool default" in shell.status("b3")["conditions"][0]["message"]
        shell.builder.go.set()
        await shell.ended("Succeeded", "b3")


@pytest.mark.row("seed-16")
async def test_a_running_build_is_cancelled_by_annotation_and_says_why(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply()
    await shell.until(lambda: shell.builder.orders)
    body = shell.cluster.bodies["one"]
    meta = {**body["metadata"], "annotations": {"imagewright.dev/cancel": "wrong branch"}}
    shell.store.see(shell.cluster.put({**body, "metadata": meta}))
    await shell.ended("Cancelled")
    await shell.until(lambda: shell.builder.cancelled == ["uid-1-1-1"])
    await shell.until(lambda: shell.worker.leased == 0)
    assert "wrong branch" in shell.status()["conditions"][0]["message"]
    assert shell.phases() == ["Running", "Cancelled"]


async def test_a_cancel_after_the_end_changes_nothing_but_the_generation(shell: Shell) -> None:
    shell.apply({"ttlSecondsAfterFinished": 60})
    await shell.ended("Succeeded")
    shell.edit(2, cancel=True)
    await shell.until(lambda: shell.status()["observedGeneration"] == 2)
    await shell.queue.idle()
    assert shell.status()["phase"] == "Succeeded"
    assert len(shell.builder.orders) == 1


async def test_a_suspended_build_begins_when_it_is_let_go(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply()
    await shell.until(lambda: shell.builder.orders)
    shell.edit(2, suspend=True)
    await shell.ended("Suspended")
    await shell.until(lambda: shell.builder.cancelled == ["uid-1-1-1"])
    assert "startTime" not in shell.status()
    shell.builder.go.set()
    shell.edit(3, suspend=False)
    await shell.ended("Succeeded")
    assert shell.status()["startTime"]


async def test_a_build_that_is_out_of_time_is_stopped_and_failed(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply({"activeDeadlineSeconds": 5})
    await shell.until(lambda: (UID, 5.0) in shell.looks)
    shell.now += timedelta(seconds=5)
    shell.queue.add(UID)
    await shell.ended("Failed")
    assert shell.status()["failure"]["reason"] == "DeadlineExceeded"
    await shell.until(lambda: shell.builder.cancelled)
    await shell.until(lambda: shell.worker.leased == 0)


@pytest.mark.row("F23")
async def test_an_end_that_meets_a_conflict_is_written_all_the_same(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply()
    await shell.until(lambda: shell.builder.orders)
    await shell.queue.idle()
    shell.cluster.put(shell.cluster.bodies["one"])
    shell.builder.go.set()
    await shell.ended("Succeeded")
    assert len(shell.builder.orders) == 1
    assert shell.phases() == ["Running", "Succeeded"]


@pytest.mark.row("F26")
async def test_an_end_that_nobody_asks_for_any_more_is_forgotten(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply()
    await shell.until(lambda: shell.builder.orders)
    await shell.queue.idle()
    shell.cluster.bodies.clear()
    shell.builder.go.set()
    await shell.until(lambda: shell.store.get(UID) is None)
    await shell.until(lambda: not shell.jobs.uids())
    assert shell.phases() == ["Running"]
    assert shell.worker.leased == 0


async def test_an_end_is_remembered_until_the_cluster_takes_it(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply()
    await shell.until(lambda: shell.builder.orders)
    await shell.queue.idle()
    shell.cluster.out = 1
    shell.builder.go.set()
    await shell.ended("Succeeded")
    assert shell.cluster.out == 0
    assert len(shell.builder.orders) == 1


async def test_nothing_runs_whose_claim_could_not_be_written(shell: Shell) -> None:
    shell.cluster.out = 1
    shell.apply()
    await shell.until(lambda: shell.cluster.out == 0)
    assert shell.builder.orders == []
    await shell.ended("Succeeded")
    assert shell.status()["attempt"] == 1
    assert len(shell.builder.orders) == 1


@pytest.mark.row("F63")
async def test_one_made_again_under_the_same_name_is_another_build(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply()
    await shell.until(lambda: shell.builder.orders)
    shell.delete()
    shell.apply({"target": "new"}, uid="uid-2")
    await shell.until(lambda: shell.builder.cancelled == ["uid-1-1-1"])
    shell.builder.go.set()
    await shell.ended("Succeeded")
    assert [order.ref for order in shell.builder.orders] == ["uid-1-1-1", "uid-2-1-1"]
    assert shell.phases().count("Running") == 2


@pytest.mark.row("F63")
async def test_a_namesake_that_the_watch_has_not_told_of_is_not_written_to(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply()
    await shell.until(lambda: shell.builder.orders)
    await shell.queue.idle()
    shell.cluster.put(a_body(uid="uid-2"))
    shell.builder.go.set()
    await shell.until(lambda: shell.store.get(UID) is None)
    await shell.queue.idle()
    assert shell.status() == {"observedGeneration": -1}
    assert shell.jobs.uids() == ()


@pytest.mark.row("F63")
async def test_a_namesake_is_not_deleted_when_the_old_one_expires(shell: Shell) -> None:
    shell.apply({"ttlSecondsAfterFinished": 60})
    await shell.ended("Succeeded")
    await shell.until(lambda: (UID, 60.0) in shell.looks)
    shell.cluster.put(a_body(uid="uid-2"))
    shell.now += timedelta(seconds=61)
    shell.queue.add(UID)
    await shell.queue.idle()
    assert shell.cluster.deleted == []
    assert "one" in shell.cluster.bodies


@pytest.mark.row("F73")
async def test_a_fault_inside_a_builder_ends_its_build_and_no_other(shell: Shell) -> None:
    shell.builder.fault = "1"
    shell.apply(name="bad", uid="1")
    shell.apply(name="good", uid="2")
    await shell.ended("Failed", "bad")
    await shell.ended("Succeeded", "good")
    assert "The operator itself failed" in shell.status("bad")["failure"]["message"]
    await shell.until(lambda: shell.worker.leased == 0)


async def test_a_revision_that_is_not_there_fails_the_build_before_it_is_claimed(
    shell: Shell,
) -> None:
    shell.builder.error = Failed("No such revision.", Reason.SOURCE_UNAVAILABLE)
    shell.store.see(shell.cluster.put({**a_body(), "spec": GIT}))
    await shell.ended("Failed")
    assert shell.phases() == ["Failed"]
    assert "startTime" not in shell.status()
    await shell.until(lambda: shell.worker.leased == 0)


async def test_an_outage_in_every_attempt_is_a_failure_that_may_pass_later(shell: Shell) -> None:
    shell.builder.error = Unavailable("The registry is out.", Reason.REGISTRY_UNAVAILABLE)
    shell.apply()
    for attempt in range(1, 4):
        await shell.until(lambda: shell.status().get("phase") == "Pending")
        await shell.until(lambda: shell.worker.leased == 0)
        assert shell.status()["attempt"] == attempt
        shell.now += timedelta(seconds=30)
        shell.queue.add(UID)
        await shell.until(lambda: len(shell.builder.orders) > attempt)  # noqa: B023
        await shell.queue.idle()
    await shell.ended("Failed")
    assert shell.status()["failure"]["retryable"] is True
    assert "It was tried 4 times (" in shell.status()["failure"]["message"]


async def test_progress_is_written_once_in_ten_seconds(shell: Shell) -> None:
    shell.builder.go.clear()
    shell.apply()
    await shell.until(lambda: shell.builder.orders)
    shell.queue.add(UID)
    await shell.queue.idle()
    assert "progress" not in shell.status()
    shell.now += timedelta(seconds=10)
    shell.queue.add(UID)
    await shell.until(lambda: "progress" in shell.status())
    assert shell.status()["progress"]["step"] == "[1/1] COPY . /"
    assert len(shell.cluster.writes) == 2


async def test_ends_are_counted_once_each_with_their_reason(shell: Shell) -> None:
    shell.apply({"ttlSecondsAfterFinished": 60})
    await shell.ended("Succeeded")
    shell.queue.add(UID)
    await shell.queue.idle()
    assert shell.metrics.builds.labels("Succeeded", "Succeeded")._value.get() == 1
    assert shell.metrics.running._value.get() == 0


@pytest.mark.row("F73")
async def test_a_fault_in_one_look_disturbs_no_other_and_comes_again() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)
        if key == "bad" and seen.count("bad") == 1:
            raise ValueError("broken")

    queue = WorkQueue(work)
    running = asyncio.create_task(queue.run())
    queue.add("bad")
    queue.add("good")
    async with asyncio.timeout(1.5):
        while seen.count("bad") < 2:
            await asyncio.sleep(0)
    assert seen.count("good") == 1
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_key_is_never_worked_on_twice_at_once_and_never_lost() -> None:
    busy, most, done = 0, 0, 0
    gate = asyncio.Event()

    async def work(_: str) -> None:
        nonlocal busy, most, done
        busy += 1
        most = max(most, busy)
        await gate.wait()
        busy -= 1
        done += 1

    queue = WorkQueue(work)
    running = asyncio.create_task(queue.run())
    queue.add("a")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for _ in range(3):
        queue.add("a")
    gate.set()
    await queue.idle()
    assert (most, done) == (1, 2)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def test_an_older_version_never_replaces_a_newer_one() -> None:
    woken: list[str] = []
    store = Store(BUILDS, woken.append)
    assert store.see(a_body(resourceVersion="9"))
    assert not store.see(a_body({"target": "old"}, resourceVersion="8"))
    assert not store.see(a_body({"target": "same"}, resourceVersion="9"))
    build = store.get(UID)
    assert build is not None
    assert build.spec.target == ""
    assert woken == [UID]


def test_a_late_event_of_a_finished_build_is_known_for_one() -> None:
    store = Store(BUILDS, lambda _: None)
    store.see(a_body(resourceVersion="5"))
    over = {**a_body(resourceVersion="9"), "status": {"phase": "Failed", "observedGeneration": 1}}
    assert store.keep(over)
    assert store.get(UID) is None
    assert not store.see(a_body(resourceVersion="7"))
    assert store.see(a_body({"rebuildToken": "1"}, resourceVersion="10", generation=2))
