"""A fault of ours at one object: told on it, and felt by no other."""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from imagewright.domain.plan import Plan
from imagewright.ports import Body, Gone, WatchedKeyring
from tests.support.makers import UID, FakeCluster, a_body
from tests.unit.reconcile.test_build import Shell, working

ODD = {"ofAnotherVersion": True}


class PoisonedCluster(FakeCluster):
    """A cluster that raises what no cluster may when one object's phase is written."""

    poisoned = "bad"

    async def patch_status(self, namespace: str, name: str, patch: Body) -> Body:
        if name == self.poisoned and "phase" in patch["status"]:
            raise ZeroDivisionError("token s3cret")
        return await super().patch_status(namespace, name, patch)


class Poisoned(Shell):
    """A shell in which keyrings cannot be made for one namespace."""

    poisoned = "bad"

    def keyrings(self, namespace: str, plan: Plan) -> WatchedKeyring:
        if namespace == self.poisoned:
            raise ZeroDivisionError("token s3cret")
        return super().keyrings(namespace, plan)


@pytest.fixture
async def shell() -> AsyncIterator[Poisoned]:
    """A shell with one slot, and one namespace whose builds we fail at."""
    made = Poisoned()
    async with working(made):
        yield made


def fault(shell: Shell, name: str = "one") -> dict[str, Any] | None:
    """The condition that tells of it."""
    held = shell.status(name).get("conditions", [])
    return next((one for one in held if one["type"] == "OperatorError"), None)


def failures(shell: Shell) -> float:
    """How many keys back off."""
    return shell.queue.backing_off


@pytest.mark.row("F73")
async def test_a_fault_at_one_object_is_told_on_it_and_all_others_are_built(shell: Shell) -> None:
    shell.apply(namespace="bad", name="bad", uid="bad")
    await shell.until(lambda: fault(shell, "bad"))
    for number in range(20):
        shell.apply(name=f"n{number}", uid=f"u{number}")
    for number in range(20):
        await shell.ended("Succeeded", f"n{number}")
    told = fault(shell, "bad")
    assert told is not None
    assert (told["status"], told["reason"]) == ("True", "OperatorError")
    assert "ZeroDivisionError" in told["message"]
    assert "s3cret" not in told["message"]
    assert shell.queue.backing_off == 1


@pytest.mark.row("F73")
async def test_a_fault_is_written_once_however_often_it_comes(shell: Shell) -> None:
    shell.apply(namespace="bad")
    await shell.until(lambda: fault(shell))
    for _ in range(5):
        shell.queue.add(UID)
        await shell.queue.idle()
    claims, told = shell.cluster.writes[:1], shell.cluster.writes[1:]
    assert "OperatorError" not in str(claims)
    assert all("OperatorError" in str(write["status"]["conditions"]) for write in told)
    assert len(told) == 1 + 5
    assert shell.status()["attempt"] == 6
    assert shell.worker.leased == 0
    assert shell.queue._failures[UID] >= 6


@pytest.mark.row("F73")
async def test_an_object_at_which_we_fail_holds_no_slot(shell: Shell) -> None:
    shell.apply({"registryAuth": [{"secretRef": {"name": "pull"}}]}, namespace="bad")
    await shell.until(lambda: fault(shell))
    await shell.queue.idle()
    assert shell.worker.leased == 0
    assert shell.scheduler.turn(UID) is None


@pytest.mark.row("F73")
async def test_a_fault_that_is_mended_is_told_no_more_and_the_build_goes_on() -> None:
    shell = Poisoned()
    async with working(shell):
        shell.apply({"registryAuth": [{"secretRef": {"name": "pull"}}]}, namespace="bad")
        await shell.until(lambda: fault(shell))
        shell.poisoned = "nobody"
        shell.keyring.secrets["pull"] = {".dockerconfigjson": b'{"auths": {}}'}
        shell.queue.add(UID)
        await shell.ended("Succeeded")
        assert fault(shell) is None
        await shell.queue.idle()
        assert shell.queue.backing_off == 0


@pytest.mark.row("F73")
async def test_a_write_that_we_fail_at_is_told_by_another(shell: Shell) -> None:
    shell.cluster = PoisonedCluster()
    shell.reconciler._writer._cluster = shell.cluster
    shell.apply(name="bad")
    await shell.until(lambda: fault(shell, "bad"))
    writes = len(shell.cluster.writes)
    for _ in range(5):
        shell.queue.add(UID)
        await shell.queue.idle()
    assert len(shell.cluster.writes) == writes
    assert shell.worker.leased == 0


@pytest.mark.row("F73")
async def test_an_outage_of_the_api_server_is_no_fault(shell: Shell) -> None:
    shell.cluster.out = 1
    shell.apply()
    await shell.until(lambda: shell.cluster.out == 0)
    await shell.queue.idle()
    assert shell.queue.backing_off == 0
    shell.queue.add(UID)
    await shell.ended("Succeeded")
    assert all("OperatorError" not in str(write) for write in shell.cluster.writes)


@pytest.mark.row("F73")
async def test_what_is_not_understood_is_told_on_it_once_and_goes_when_it_is(
    shell: Shell,
) -> None:
    shell.apply(ODD)
    await shell.until(lambda: fault(shell))
    told = fault(shell)
    assert told is not None
    assert "spec.ofAnotherVersion: Extra inputs are not permitted" in told["message"]
    for _ in range(3):
        shell.queue.add(UID)
        await shell.queue.idle()
    assert len(shell.cluster.writes) == 1
    body = shell.cluster.bodies["one"]
    shell.store.see(shell.cluster.put({**body, "spec": a_body()["spec"]}))
    await shell.ended("Succeeded")
    assert fault(shell) is None


@pytest.mark.row("F73")
async def test_a_fault_that_cannot_be_told_is_still_a_fault(shell: Shell) -> None:
    shell.apply(ODD)
    shell.cluster.bodies.clear()
    await shell.until(lambda: shell.queue.backing_off)
    assert shell.cluster.writes == []


@pytest.mark.row("F73")
async def test_the_pause_after_a_fault_grows_while_others_are_looked_at(shell: Shell) -> None:
    shell.apply(namespace="bad", name="bad", uid="bad")
    await shell.until(lambda: fault(shell, "bad"))
    shell.queue._failures["bad"] = 30
    shell.queue.add("bad")
    await shell.until(lambda: shell.queue._failures["bad"] > 30)
    await shell.queue.idle()
    shell.now += timedelta(seconds=1)
    with contextlib.suppress(Gone):
        shell.apply()
    await shell.ended("Succeeded")
