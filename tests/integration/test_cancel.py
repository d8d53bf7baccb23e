"""A build is stopped in every phase, by delete, by field and by annotation; and stays stopped."""

import json
from typing import Any

import pytest

import devstack
from bench.processes import appeared, vanished
from devstack.builds import Builds, condition
from tests.support.specs import numbers
from tests.support.stopping import stops

pytestmark = pytest.mark.usefixtures("operator")
_seconds = numbers(800)


def sleeping(stack: devstack.Stack, **more: Any) -> tuple[dict[str, Any], str]:
    """A spec that sleeps, and the argument by which its process is found."""
    seconds = str(next(_seconds))
    text = f"FROM {stack.base_image}\nRUN sleep {seconds}\n"
    return {"source": {"inline": {"files": {"Dockerfile": text}}}, **more}, seconds


CANCEL = {"spec": {"cancel": True}}
ANNOTATE = {"metadata": {"annotations": {"imagewright.dev/cancel": "wrong branch"}}}


@pytest.mark.row("seed-16")
@pytest.mark.row("F60")
async def test_delete_ends_a_running_build_and_the_object_at_once(
    stack: devstack.Stack, builds: Builds
) -> None:
    image = f"{stack.registry}/{builds.namespace}/deleted:1"
    spec, seconds = sleeping(stack, images=[image])
    await builds.create("running", spec)
    pid = await appeared(seconds)
    await stops(builds, "running", vanished(pid))


@pytest.mark.row("seed-16")
@pytest.mark.parametrize(
    ("patch", "message"),
    [(CANCEL, "Cancelled by spec.cancel."), (ANNOTATE, "Cancelled by annotation: wrong branch.")],
    ids=["by spec.cancel", "by annotation"],
)
async def test_a_running_build_is_cancelled_and_stays_cancelled(
    stack: devstack.Stack, builds: Builds, patch: dict[str, Any], message: str
) -> None:
    spec, seconds = sleeping(stack)
    await builds.create("running", spec)
    pid = await appeared(seconds)
    await builds.patch("running", patch)
    ended = await builds.phase("running", "Cancelled")
    await vanished(pid, seconds=2)
    assert condition(ended.body, "Succeeded")["message"] == message
    assert condition(ended.body, "Complete")["status"] == "True"
    assert "claim" not in ended.status
    undone = await builds.patch(
        "running", {"spec": {"cancel": False}, "metadata": {"labels": {"touched": "yes"}}}
    )
    generation = undone["metadata"]["generation"]
    await builds.until("running", lambda seen: seen.status.get("observedGeneration") == generation)
    assert builds.phases("running") == ["Running", "Cancelled"]


@pytest.mark.row("F60")
@pytest.mark.parametrize("how", ["delete", "cancel", "annotation", "suspend"])
async def test_a_waiting_build_is_stopped_before_it_begins(
    stack: devstack.Stack, builds: Builds, how: str
) -> None:
    (first, one), (second, two) = sleeping(stack), sleeping(stack)
    await builds.create("a", first)
    await builds.create("b", second)
    await appeared(one)
    await appeared(two)
    waiting, _ = sleeping(stack)
    await builds.create("c", waiting)
    pending = await builds.phase("c", "Pending")
    assert condition(pending.body, "Succeeded")["reason"] == "Queued"
    if how == "delete":
        await builds.delete("c")
        await builds.gone("c", seconds=1)
    else:
        suspend = {"spec": {"suspend": True}}
        patch: dict[str, dict[str, Any]] = {
            "cancel": CANCEL,
            "annotation": ANNOTATE,
            "suspend": suspend,
        }
        await builds.patch("c", patch[how])
        await builds.phase("c", "Suspended" if how == "suspend" else "Cancelled")
    await builds.delete("a")
    await builds.delete("b")
    await builds.create(
        "d", {"source": {"inline": {"files": {"Dockerfile": "FROM scratch\nLABEL a=b\n"}}}}
    )
    await builds.ended("d")
    assert "Running" not in builds.phases("c")


async def test_a_build_cancelled_from_the_start_never_runs(
    stack: devstack.Stack, builds: Builds
) -> None:
    spec, _ = sleeping(stack, cancel=True)
    await builds.create("never", spec)
    await builds.phase("never", "Cancelled")
    assert builds.phases("never") == ["Cancelled"]


async def test_suspend_stops_a_build_and_its_end_starts_it_again(
    stack: devstack.Stack, builds: Builds
) -> None:
    spec, seconds = sleeping(stack)
    await builds.create("pause", spec)
    pid = await appeared(seconds)
    await builds.patch("pause", {"spec": {"suspend": True}})
    paused = await builds.phase("pause", "Suspended")
    await vanished(pid, seconds=2)
    assert "startTime" not in paused.status
    assert condition(paused.body, "Reconciling") == {}
    await builds.patch("pause", {"spec": {"suspend": False}})
    again = await appeared(seconds)
    await builds.delete("pause")
    await vanished(again, seconds=2)


async def test_a_new_token_or_spec_starts_a_new_run_and_an_operational_field_does_not(
    builds: Builds,
) -> None:
    spec = {"source": {"inline": {"files": {"Dockerfile": "FROM scratch\nLABEL a=c\n"}}}}
    await builds.create("again", spec)
    first = await builds.ended("again")
    await builds.patch("again", {"spec": {"ttlSecondsAfterFinished": 3600}})
    kept = await builds.ended("again", generation=2)
    assert kept.status["completionTime"] == first.status["completionTime"]
    await builds.patch("again", {"spec": {"rebuildToken": "1"}})
    second = await builds.ended("again", generation=3)
    assert second.status["completionTime"] > first.status["completionTime"]
    assert second.status["inputsDigest"] != first.status["inputsDigest"]


async def test_an_edit_while_it_runs_stops_the_old_inputs_and_builds_the_new(
    stack: devstack.Stack, builds: Builds
) -> None:
    spec, seconds = sleeping(stack)
    await builds.create("edited", spec)
    pid = await appeared(seconds)
    files = {"Dockerfile": "FROM scratch\nLABEL new=inputs\n"}
    await builds.patch("edited", {"spec": {"source": {"inline": {"files": files}}}})
    await vanished(pid, seconds=2)
    ended = await builds.ended("edited", generation=2)
    assert ended.status["phase"] == "Succeeded"
    assert ended.status["attempt"] == 1


async def test_it_is_stopped_at_its_deadline(stack: devstack.Stack, builds: Builds) -> None:
    spec, seconds = sleeping(stack, activeDeadlineSeconds=2)
    await builds.create("late", spec)
    pid = await appeared(seconds)
    ended = await builds.ended("late", seconds=10)
    await vanished(pid, seconds=2)
    assert ended.status["failure"]["reason"] == "DeadlineExceeded"


async def test_a_finished_build_is_deleted_when_its_time_is_over(builds: Builds) -> None:
    files = {"Dockerfile": "FROM scratch\nLABEL ttl=yes\n"}
    spec = {"source": {"inline": {"files": files}}, "ttlSecondsAfterFinished": 1}
    await builds.create("short", spec)
    ended = await builds.ended("short")
    deleted = await builds.gone("short", seconds=10)
    assert deleted.at - ended.at > 0.5


@pytest.mark.row("F63")
async def test_a_namesake_created_right_after_a_delete_is_built(
    stack: devstack.Stack, builds: Builds
) -> None:
    spec, seconds = sleeping(stack)
    first = await builds.create("twin", spec)
    pid = await appeared(seconds)
    await builds.delete("twin")
    files = {"Dockerfile": "FROM scratch\nLABEL twin=second\n"}
    second = await builds.create("twin", {"source": {"inline": {"files": files}}})
    await vanished(pid, seconds=2)
    ended = await builds.ended("twin")
    assert ended.body["metadata"]["uid"] == second["metadata"]["uid"] != first["metadata"]["uid"]


@pytest.mark.row("F64")
async def test_one_of_two_equal_builds_goes_on_when_the_other_is_deleted(
    stack: devstack.Stack, builds: Builds
) -> None:
    text = f"FROM {stack.base_image}\nRUN echo {builds.namespace} && sleep 3.25\n"
    spec = {"source": {"inline": {"files": {"Dockerfile": text}}}}
    await builds.create("one", spec)
    await builds.create("two", spec)
    await appeared("3.25")
    await builds.phase("two", "Running")
    await builds.delete("one")
    ended = await builds.ended("two")
    assert ended.status["phase"] == "Succeeded", json.dumps(ended.status)
