"""The shell of prunes, with everything real but the cluster, the caches and the clock."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from imagewright.domain.facts import Closing
from imagewright.metrics import Metrics
from imagewright.ports import Body
from imagewright.prunes import Prunes
from imagewright.reconcile.prune import LONGEST_PAUSE, PruneReconciler, PruneWorld
from imagewright.reconcile.store import PRUNES, Store, at_rest
from imagewright.reconcile.workqueue import WorkQueue
from imagewright.reconcile.zones import Zones
from tests.support.makers import NOW, UID, FakeCluster, Told
from tests.support.prunemakers import ONE, TWO, FakeCache, a_prune_body


class SlowCluster(FakeCluster):
    """One whose writes take long enough for everything else to go on meanwhile."""

    async def patch_status(self, namespace: str, name: str, patch: Body) -> Body:
        """As always, later."""
        for _ in range(20):
            await asyncio.sleep(0)
        return await super().patch_status(namespace, name, patch)


class Shell:
    """The half of an operator that prunes; its clock stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW
        self.cluster, self.metrics = SlowCluster(), Metrics()
        self.caches = {ONE: FakeCache(5), TWO: FakeCache(7)}
        self.queue = WorkQueue(self._work)
        self.store = Store(PRUNES, self.queue.add)
        self.prunes = Prunes(self.queue.add)
        self.notices = Told()
        world = PruneWorld(
            self.cluster,
            self.store,
            self.prunes,
            lambda: self.caches,
            self.notices,
            self.metrics,
            self.clock,
        )
        self.looks: list[float] = []
        self.reconciler = PruneReconciler(world, self._look_in)

    def clock(self) -> datetime:
        return self.now

    def apply(self, spec: dict[str, Any] | None = None, **metadata: Any) -> None:
        """A user creates an object, and the watch tells of it."""
        self.store.see(self.cluster.put(a_prune_body(spec, **metadata)))

    def edit(self, generation: int, **spec: Any) -> None:
        """A user changes it, and the watch tells of it."""
        self.store.see(self.cluster.edit("one", generation, **spec))

    def delete(self) -> None:
        """A user deletes it, and the watch tells of it."""
        self.store.drop(self.cluster.bodies.pop("one")["metadata"]["uid"])

    def status(self) -> dict[str, Any]:
        """What is written about it."""
        found: dict[str, Any] = self.cluster.bodies["one"]["status"]
        return found

    def phases(self) -> list[str]:
        """The phases that were written."""
        return [one["status"]["phase"] for one in self.cluster.writes if "phase" in one["status"]]

    async def until(self, right: Callable[[], object]) -> None:
        """Let the loop turn until it is right."""
        async with asyncio.timeout(1.5):
            while not right():
                await asyncio.sleep(0)

    async def phase(self, phase: str) -> None:
        """Until this phase is written."""
        await self.until(lambda: self.status().get("phase") == phase)

    async def _work(self, uid: str) -> None:
        await self.reconciler.reconcile(uid)

    def _look_in(self, uid: str, seconds: float) -> None:
        self.looks.append(seconds)
        if seconds <= 0:
            self.queue.add(uid)


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    """A shell whose queue runs."""
    shell = Shell()
    running = asyncio.create_task(shell.queue.run())
    yield shell
    for uid in shell.prunes.uids():
        shell.prunes.cancel(uid)
    await shell.prunes.quiet()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.mark.row("seed-14")
async def test_a_prune_costs_two_writes_and_is_remembered_no_longer(shell: Shell) -> None:
    shell.apply()
    await shell.phase("Succeeded")
    await shell.queue.idle()
    assert shell.phases() == ["Running", "Succeeded"]
    assert len(shell.cluster.writes) == 2
    assert shell.status()["reclaimedBytes"] == 12
    assert shell.metrics.reclaimed._value.get() == 12
    assert shell.notices.words == ["CachePruned one"]
    assert shell.store.get(UID) is None
    shell.store.see(shell.cluster.put(shell.cluster.bodies["one"]))
    await shell.queue.idle()
    assert len(shell.cluster.writes) == 2


async def test_only_who_has_written_that_it_runs_prunes(shell: Shell) -> None:
    body = shell.cluster.put(a_prune_body())
    # Somebody else wrote meanwhile, so our write meets a conflict and the object is read again.
    shell.cluster.put({**body, "metadata": {**body["metadata"], "labels": {"a": "b"}}})
    shell.store.see(body)
    await shell.phase("Succeeded")
    assert 0.0 in shell.looks
    assert [len(cache.policies) for cache in shell.caches.values()] == [1, 1]


async def test_a_claim_that_the_api_server_does_not_answer_is_made_again(shell: Shell) -> None:
    shell.cluster.out = 1
    shell.apply()
    await shell.until(lambda: not shell.cluster.out)
    assert [cache.policies for cache in shell.caches.values()] == [[], []]
    await shell.phase("Succeeded")
    assert [len(cache.policies) for cache in shell.caches.values()] == [1, 1]
    assert shell.phases() == ["Running", "Succeeded"]


async def test_what_is_deleted_before_it_is_claimed_is_not_pruned(shell: Shell) -> None:
    shell.store.see(a_prune_body())
    await shell.until(lambda: shell.caches[ONE].asked and not shell.prunes.uids())
    shell.store.drop(UID)
    await shell.queue.idle()
    await shell.prunes.quiet()
    assert [cache.policies for cache in shell.caches.values()] == [[], []]


async def test_what_is_edited_before_it_is_claimed_is_pruned_by_its_new_spec(shell: Shell) -> None:
    body = shell.cluster.put(a_prune_body())
    shell.cluster.edit("one", 2, dryRun=True)
    shell.store.see(body)
    await shell.phase("Succeeded")
    assert [[one.dry_run for one in cache.policies] for cache in shell.caches.values()] == [
        [True],
        [True],
    ]


async def test_an_operator_that_died_between_its_claim_and_the_end_is_succeeded_by_the_next(
    shell: Shell,
) -> None:
    shell.cluster.put(
        {
            **a_prune_body(),
            "status": {
                "observedGeneration": 1,
                "phase": "Running",
                "startTime": "2026-01-02T03:00:00Z",
            },
        }
    )
    shell.store.see(shell.cluster.bodies["one"])
    await shell.phase("Succeeded")
    assert [len(cache.policies) for cache in shell.caches.values()] == [1, 1]


async def test_a_deleted_prune_is_cancelled(shell: Shell) -> None:
    shell.caches[ONE].go.clear()
    shell.apply()
    await shell.until(lambda: shell.caches[ONE].policies)
    shell.delete()
    await shell.until(lambda: shell.caches[ONE].cancelled)
    assert shell.prunes.uids() == ()


async def test_an_edit_stops_what_runs_and_prunes_by_the_new_spec(shell: Shell) -> None:
    shell.caches[ONE].go.clear()
    shell.apply()
    await shell.until(lambda: shell.caches[ONE].policies)
    shell.edit(2, dryRun=True)
    await shell.until(lambda: len(shell.caches[ONE].policies) == 2)
    shell.caches[ONE].go.set()
    await shell.phase("Succeeded")
    assert shell.caches[ONE].cancelled == 1
    assert [one.dry_run for one in shell.caches[ONE].policies] == [False, True]
    assert shell.status()["observedGeneration"] == 2
    assert shell.metrics.reclaimed._value.get() == 0


async def test_a_schedule_runs_at_its_time_and_once_for_all_that_were_missed(
    shell: Shell,
) -> None:
    shell.apply({"schedule": "0 3 * * *", "timeZone": "Europe/Berlin"})
    await shell.phase("Pending")
    await shell.queue.idle()
    assert shell.status()["nextScheduleTime"] == "2026-01-03T02:00:00Z"
    assert shell.looks[-1] == LONGEST_PAUSE
    shell.now += timedelta(days=3)
    shell.queue.add(UID)
    await shell.phase("Succeeded")
    await shell.queue.idle()
    assert shell.status()["lastScheduleTime"] == "2026-01-05T02:00:00Z"
    assert shell.status()["nextScheduleTime"] == "2026-01-06T02:00:00Z"
    shell.queue.add(UID)
    await shell.queue.idle()
    assert [len(cache.policies) for cache in shell.caches.values()] == [1, 1]
    assert shell.store.get(UID) is not None


async def test_a_finished_prune_is_deleted_after_its_time(shell: Shell) -> None:
    shell.apply({"ttlSecondsAfterFinished": 60})
    await shell.phase("Succeeded")
    await shell.queue.idle()
    assert shell.looks[-1] == 60
    shell.now += timedelta(seconds=60)
    shell.queue.add(UID)
    await shell.until(lambda: shell.cluster.deleted)
    assert shell.cluster.deleted == ["/one"]


async def test_going_down_stops_it_and_the_next_operator_begins_it_anew(shell: Shell) -> None:
    shell.caches[ONE].go.clear()
    shell.apply()
    await shell.until(lambda: shell.caches[ONE].policies)
    shell.reconciler.closing = Closing.CLOSED
    shell.queue.add(UID)
    await shell.phase("Pending")
    assert shell.status()["conditions"][0]["reason"] == "Interrupted"
    await shell.prunes.quiet()
    shell.caches[ONE].go.set()
    shell.reconciler.closing = Closing.OPEN
    shell.queue.add(UID)
    await shell.phase("Succeeded")


async def test_an_api_server_that_is_away_loses_no_figures(shell: Shell) -> None:
    shell.caches[ONE].go.clear()
    shell.apply()
    await shell.phase("Running")
    shell.cluster.out = 1
    shell.caches[ONE].go.set()
    await shell.phase("Succeeded")
    assert shell.status()["reclaimedBytes"] == 12
    assert [len(cache.policies) for cache in shell.caches.values()] == [1, 1]


async def test_a_schedule_is_never_at_rest() -> None:
    done = {"phase": "Succeeded", "observedGeneration": 1}
    assert at_rest({**a_prune_body(), "status": done})
    assert not at_rest({**a_prune_body(), "status": {**done, "nextScheduleTime": "x"}})
    assert not at_rest(a_prune_body())


async def test_a_time_zone_is_known_by_its_name_and_nothing_else_is() -> None:
    zones = Zones()
    for name in ("Europe/Berlin", "Mars/Base", "America", "../../etc/passwd"):
        await zones.learn(name)
    assert str(zones.known["Europe/Berlin"]) == "Europe/Berlin"
    assert [name for name, zone in zones.known.items() if zone] == ["Europe/Berlin"]
