"""Builds that name Secrets and ConfigMaps: waited for, read at each attempt, never shown."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from imagewright.api.reason import Reason
from imagewright.domain.plan import Inline
from imagewright.ports import Failed, Rejected, Unavailable
from tests.support.makers import UID
from tests.unit.reconcile.test_build import Shell, working

NEEDY: dict[str, Any] = {
    "secrets": [{"id": "npm", "secretRef": {"name": "npm", "key": "token"}}],
    "images": ["r.example/a:1"],
}


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    """A shell with one slot, whose queue runs."""
    async with working(Shell()) as shell:
        yield shell


def reason(shell: Shell, name: str = "one") -> str:
    """What its first condition says."""
    return str(shell.status(name).get("conditions", [{"reason": ""}])[0]["reason"])


async def look_later(shell: Shell, seconds: float = 2) -> None:
    """Time passes, and what was to be looked at again is."""
    shell.now += timedelta(seconds=seconds)
    shell.queue.add(UID)
    await shell.queue.idle()


@pytest.mark.row("F40")
async def test_a_missing_secret_is_waited_for_and_the_build_goes_on_by_itself(
    shell: Shell,
) -> None:
    shell.apply(NEEDY)
    await shell.ended("Pending")
    assert reason(shell) == "SecretNotFound"
    assert "npm" in shell.status()["conditions"][0]["message"]
    assert shell.worker.leased == 0
    shell.keyring.secrets["npm"] = {"token": b"x"}
    shell.keyring.tell()
    await shell.ended("Succeeded")
    assert shell.phases() == ["Pending", "Running", "Succeeded"]


async def test_a_secret_without_the_key_is_waited_for_as_well(shell: Shell) -> None:
    shell.keyring.secrets["npm"] = {"other": b"x"}
    shell.apply(NEEDY)
    await shell.ended("Pending")
    assert "no key token" in shell.status()["conditions"][0]["message"]
    shell.keyring.secrets["npm"] = {"token": b"x"}
    shell.keyring.tell()
    await shell.ended("Succeeded")


async def test_waiting_again_is_written_once(shell: Shell) -> None:
    shell.apply(NEEDY)
    await shell.ended("Pending")
    for _ in range(5):
        shell.keyring.tell()
        await shell.until(lambda: shell.keyring.watchers)
    await shell.queue.idle()
    assert len(shell.cluster.writes) == 1


@pytest.mark.row("F40")
async def test_however_long_it_waits_it_asks_nothing_until_something_changes(
    shell: Shell,
) -> None:
    shell.apply(NEEDY)
    await shell.ended("Pending")
    shell.keyring.secrets["npm"] = {"token": b"x"}
    await look_later(shell, 600)
    assert shell.status()["phase"] == "Pending"
    shell.keyring.tell()
    await shell.ended("Succeeded")


async def test_an_api_server_is_asked_less_often_the_longer_it_does_not_answer(
    shell: Shell,
) -> None:
    shell.keyring.error = Unavailable("The API server did not answer.")
    shell.apply(NEEDY)
    await shell.ended("Pending")
    shell.looks.clear()
    await look_later(shell, 400)
    await shell.until(lambda: any(1.5 < seconds <= 30 for _, seconds in shell.looks))


async def test_it_waits_no_longer_than_its_deadline(shell: Shell) -> None:
    shell.apply({**NEEDY, "activeDeadlineSeconds": 60})
    await shell.ended("Pending")
    await look_later(shell, 61)
    await shell.ended("Failed")
    assert reason(shell) == "DeadlineExceeded"
    assert "npm" in shell.status()["failure"]["message"]


async def test_what_waits_for_a_secret_holds_no_slot_and_no_place(shell: Shell) -> None:
    shell.apply(NEEDY)
    await shell.ended("Pending")
    shell.apply(name="two", uid="uid-2", creationTimestamp="2026-01-02T03:01:00Z")
    await shell.ended("Succeeded", "two")


@pytest.mark.row("F42")
async def test_a_secret_that_cannot_be_used_fails_the_build_at_once(shell: Shell) -> None:
    shell.keyring.secrets["npm"] = {"token": b"x"}
    shell.keyring.error = Rejected("The Secret pull holds none.", Reason.INVALID_CREDENTIALS)
    shell.apply(NEEDY)
    await shell.ended("Failed")
    assert reason(shell) == "InvalidCredentials"
    assert shell.builder.orders == []


async def test_an_api_server_that_does_not_answer_is_waited_for(shell: Shell) -> None:
    shell.keyring.error = Unavailable("The API server did not answer.")
    shell.apply(NEEDY)
    await shell.ended("Pending")
    shell.keyring.error = None
    shell.keyring.secrets["npm"] = {"token": b"x"}
    await look_later(shell)
    await shell.ended("Succeeded")


async def test_a_config_map_is_read_before_the_build_and_becomes_its_files(shell: Shell) -> None:
    shell.keyring.configs["files"] = {"Dockerfile": b"FROM scratch\n", "blob": b"\0"}
    shell.apply({"source": {"configMap": {"name": "files"}}})
    await shell.ended("Succeeded")
    (order,) = shell.builder.orders
    assert order.plan.source == Inline({"Dockerfile": b"FROM scratch\n", "blob": b"\0"})


@pytest.mark.row("F41")
async def test_a_secret_is_looked_for_again_at_the_next_attempt(shell: Shell) -> None:
    shell.keyring.secrets["npm"] = {"token": b"x"}
    shell.builder.error = Unavailable("The registry is out.", Reason.REGISTRY_UNAVAILABLE)
    shell.apply(NEEDY)
    await shell.ended("Pending")
    del shell.keyring.secrets["npm"]
    shell.builder.error = None
    await look_later(shell)
    await shell.queue.idle()
    await shell.until(lambda: reason(shell) == "SecretNotFound")
    assert shell.status()["attempt"] == 1
    shell.keyring.secrets["npm"] = {"token": b"y"}
    shell.keyring.tell()
    await shell.ended("Succeeded")
    assert shell.status()["attempt"] == 2


@pytest.mark.row("F41")
async def test_a_secret_that_went_while_the_build_waited_for_its_slot_is_waited_for(
    shell: Shell,
) -> None:
    shell.keyring.secrets["npm"] = {"token": b"x"}
    shell.builder.go.clear()
    shell.apply(name="first", uid="uid-0", creationTimestamp="2026-01-02T02:00:00Z")
    await shell.until(lambda: shell.builder.orders)
    shell.apply(NEEDY)
    await shell.until(lambda: reason(shell) == "Queued")
    del shell.keyring.secrets["npm"]
    shell.builder.go.set()
    await shell.until(lambda: reason(shell) == "Retrying")
    await look_later(shell)
    await shell.until(lambda: reason(shell) == "SecretNotFound")
    assert len(shell.builder.orders) == 1
    shell.keyring.secrets["npm"] = {"token": b"y"}
    shell.keyring.tell()
    await shell.ended("Succeeded")
    assert shell.status()["attempt"] == 2


@pytest.mark.row("S15")
async def test_what_was_read_is_masked_where_it_comes_back(shell: Shell) -> None:
    shell.keyring.secrets["npm"] = {"token": b"canary-value"}
    shell.keyring.hidden = {"canary-value"}
    shell.builder.error = Failed("It said canary-value and ended.").at("1", 2, 7)
    shell.apply(NEEDY)
    await shell.ended("Failed")
    assert "canary-value" not in str(shell.status())
    assert "***" in shell.status()["failure"]["message"]


async def test_deleting_what_waits_ends_the_waiting(shell: Shell) -> None:
    shell.apply(NEEDY)
    await shell.ended("Pending")
    shell.delete()
    await shell.queue.idle()
    assert shell.jobs.uids() == ()
    assert shell.keyring.watchers == []


async def test_other_inputs_wait_for_what_they_name_themselves(shell: Shell) -> None:
    shell.apply(NEEDY)
    await shell.ended("Pending")
    other = [{"id": "npm", "secretRef": {"name": "other", "key": "token"}}]
    shell.edit(2, secrets=other)
    await shell.until(lambda: "other" in shell.status()["conditions"][0]["message"])
    assert len(shell.keyring.watchers) == 1
