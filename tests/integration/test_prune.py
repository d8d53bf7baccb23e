"""BuildCachePrune: what the caches hold is freed, told to the byte, and no build is disturbed."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import yaml

import devstack
from bench.processes import appeared
from devstack.builds import Builds, condition
from devstack.operator import OperatorProcess, start_operator
from devstack.prunes import Prunes
from tests.support.pruning import all_records, filled, records_of, run, size_of, unique
from tests.support.specs import numbers
from tests.support.stack import Kubectl
from tests.support.waiting import becomes

_seconds = numbers(810)


@pytest.fixture(scope="module")
def pruner(
    stack: devstack.Stack, workers: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """An operator over these two."""
    running = start_operator(
        tmp_path_factory.mktemp("pruner"),
        stack.operator_kubeconfig,
        pools=[{"workers": list(workers), "slots": 2}],
    )
    yield running
    running.stop()


@pytest.mark.row("seed-14")
@pytest.mark.row("P1")
@pytest.mark.usefixtures("pruner")
async def test_what_is_told_is_what_the_daemons_lost(
    stack: devstack.Stack, builds: Builds, prunes: Prunes, workers: tuple[str, ...]
) -> None:
    await filled(stack, builds, 4)
    before = [await records_of(address) for address in workers]
    status = (await run(prunes, all=True)).status
    after = [await records_of(address) for address in workers]
    lost = {name for old, new in zip(before, after, strict=True) for name in set(old) - set(new)}
    assert status["phase"] == "Succeeded"
    assert status["reclaimedBytes"] == sum(map(size_of, before)) - sum(map(size_of, after))
    assert status["reclaimedBytes"] > 4 << 20
    assert status["cachesDeleted"] == len(lost)
    assert set(status["cacheIDs"]) == lost or len(lost) > 50
    assert [one["worker"] for one in status["targets"]] == ["", *sorted(workers)]
    for one, old, new in zip(status["targets"][1:], before, after, strict=True):
        assert one["kind"] == "buildkit"
        assert one["usedBytesBefore"] == size_of(old)
        assert one["usedBytesAfter"] == size_of(new)
        assert one["reclaimedBytes"] == size_of(old) - size_of(new)
    again = (await run(prunes, all=True)).status
    assert (again["reclaimedBytes"], again["cachesDeleted"]) == (0, 0)
    assert "0.0 MB in 0 records" in again["conditions"][0]["message"]


@pytest.mark.usefixtures("pruner")
async def test_kubectl_waits_for_its_end_and_shows_the_columns(kubectl: Kubectl) -> None:
    name = unique()
    manifest = {
        "apiVersion": "imagewright.dev/v1alpha1",
        "kind": "BuildCachePrune",
        "metadata": {"name": name},
        "spec": {},
    }
    kubectl("apply", "--filename=-", text=yaml.safe_dump(manifest))
    kubectl("wait", "--for=condition=Complete", f"bcp/{name}", "--timeout=30s")
    header, row = kubectl("get", f"bcp/{name}", "--output=wide").splitlines()
    assert header.split() == [
        "NAME", "STATUS", "REASON", "RECLAIMED", "DELETED", "SCHEDULE", "STARTED", "AGE", "DRYRUN",
        "MESSAGE",
    ]  # fmt: skip
    assert row.split()[:3] == [name, "Succeeded", "Succeeded"]
    await becomes(lambda: "CachePruned" in kubectl("describe", f"bcp/{name}"), True, 10)
    assert "Go-style" not in kubectl("explain", "buildcacheprune.spec", "--recursive")
    assert "the least used first" in kubectl("explain", "bcp.spec.maxUsedSpace")
    kubectl("delete", f"bcp/{name}")


@pytest.mark.row("P11")
@pytest.mark.usefixtures("pruner")
async def test_a_type_takes_records_of_that_type_alone(
    stack: devstack.Stack, builds: Builds, prunes: Prunes, workers: tuple[str, ...]
) -> None:
    await filled(stack, builds)
    before = await all_records(workers)
    status = (await run(prunes, filters={"type": ["exec.cachemount"]})).status
    after = await all_records(workers)
    gone = [before[name].type for name in set(before) - set(after)]
    assert set(gone) == {"exec.cachemount"}
    assert status["cachesDeleted"] == len(gone) >= 2
    assert "exec.cachemount" not in {record.type for record in after.values()}
    assert {"regular"} <= {record.type for record in after.values()}


@pytest.mark.row("P10")
@pytest.mark.usefixtures("pruner")
async def test_an_id_is_a_part_of_a_records_own(
    stack: devstack.Stack, builds: Builds, prunes: Prunes, workers: tuple[str, ...]
) -> None:
    await filled(stack, builds)
    before = await all_records(workers)
    mounts = sorted(name for name, record in before.items() if record.type == "exec.cachemount")
    pattern = f"^{mounts[0][:8]}"
    status = (await run(prunes, filters={"id": [pattern, f"{mounts[1][-8:]}$"]})).status
    assert sorted(status["cacheIDs"]) == mounts[:2]
    assert set(before) - set(await all_records(workers)) == set(mounts[:2])


@pytest.mark.row("P12")
@pytest.mark.usefixtures("pruner")
async def test_a_description_is_matched_word_for_word(
    stack: devstack.Stack, builds: Builds, prunes: Prunes, workers: tuple[str, ...]
) -> None:
    await filled(stack, builds)
    before = await all_records(workers)
    wanted = next(one for one in before.values() if one.type == "exec.cachemount")
    assert " " in wanted.description
    part = (await run(prunes, filters={"description": [wanted.description[:-1]]})).status
    assert part["cachesDeleted"] == 0
    status = (await run(prunes, filters={"description": [wanted.description]})).status
    gone = set(before) - set(await all_records(workers))
    assert wanted.id in gone
    assert {before[name].description for name in gone} == {wanted.description}
    assert status["cachesDeleted"] == len(gone)


@pytest.mark.row("P8")
@pytest.mark.usefixtures("pruner")
async def test_what_was_used_lately_stays(
    stack: devstack.Stack, builds: Builds, prunes: Prunes, workers: tuple[str, ...]
) -> None:
    await filled(stack, builds)
    before = await all_records(workers)
    for spec in ({"keepDuration": "1h30m"}, {"filters": {"until": "48h"}}):
        status = (await run(prunes, all=True, **spec)).status
        assert status["phase"] == "Succeeded"
        assert status["cachesDeleted"] == 0
    assert set(await all_records(workers)) == set(before)


@pytest.mark.row("P4")
@pytest.mark.row("seed-15")
@pytest.mark.usefixtures("pruner")
async def test_sizes_are_kept_to(
    stack: devstack.Stack, builds: Builds, prunes: Prunes, workers: tuple[str, ...]
) -> None:
    await filled(stack, builds, 4)
    before = await all_records(workers)
    for spec in ({"reservedSpace": "1Ti"}, {"maxUsedSpace": "10G"}):
        assert (await run(prunes, **spec)).status["reclaimedBytes"] == 0
    assert set(await all_records(workers)) == set(before)
    limit = 4 << 20
    for spec in ({"maxUsedSpace": "4Mi"}, {"reservedSpace": "4Mi"}):
        status = (await run(prunes, **spec)).status
        for one in status["targets"]:
            assert one["usedBytesAfter"] < limit
            # The last record that went is what brought it below; without it there was more.
            assert one["usedBytesBefore"] < limit or one["cachesDeleted"] > 0
    kept = size_of(await all_records(workers))
    assert (await run(prunes, maxUsedSpace="1", reservedSpace="1Gi")).status["reclaimedBytes"] == 0
    assert size_of(await all_records(workers)) == kept > 0


@pytest.mark.row("P6")
@pytest.mark.usefixtures("pruner")
async def test_free_space_that_is_there_takes_one_record_of_each_worker_at_most(
    stack: devstack.Stack, builds: Builds, prunes: Prunes
) -> None:
    await filled(stack, builds, 4)
    status = (await run(prunes, minFreeSpace="1")).status
    assert status["phase"] == "Succeeded"
    assert all(one["cachesDeleted"] <= 1 for one in status["targets"])


@pytest.mark.usefixtures("pruner")
@pytest.mark.parametrize(
    "spec",
    [{}, {"filters": {"type": ["exec.cachemount", "source.local"]}}, {"maxUsedSpace": "3Mi"}],
    ids=["everything", "by type", "by size"],
)
async def test_a_dry_run_frees_nothing_and_foretells_what_goes(
    stack: devstack.Stack,
    builds: Builds,
    prunes: Prunes,
    workers: tuple[str, ...],
    spec: dict[str, Any],
) -> None:
    await filled(stack, builds)
    before = await all_records(workers)
    told = (await run(prunes, dryRun=True, **spec)).status
    assert set(await all_records(workers)) == set(before)
    assert told["reclaimedBytes"] > 0
    assert "A dry run" in told["conditions"][0]["message"]
    done = (await run(prunes, **spec)).status
    assert done["reclaimedBytes"] == told["reclaimedBytes"]
    assert sorted(done["cacheIDs"]) == sorted(told["cacheIDs"])


@pytest.mark.usefixtures("pruner")
async def test_named_workers_are_pruned_and_no_others(
    stack: devstack.Stack, builds: Builds, prunes: Prunes, workers: tuple[str, ...]
) -> None:
    await filled(stack, builds, 4)
    other = await records_of(workers[1])
    status = (await run(prunes, workers=[workers[0]])).status
    assert [one["worker"] for one in status["targets"]] == [workers[0]]
    assert set(await records_of(workers[1])) == set(other)
    for spec in ({"workers": ["none"]}, {"pools": ["none"]}):
        ended = await run(prunes, **spec)
        assert condition(ended.body, "Succeeded")["reason"] == "NoTarget"
        assert condition(ended.body, "Stalled")["status"] == "True"
    assert (await run(prunes, pools=["default"], include=["buildCache"])).status["targets"]


@pytest.mark.timeout(150)
@pytest.mark.usefixtures("pruner")
async def test_a_schedule_prunes_in_its_minute_and_tells_the_next(
    stack: devstack.Stack, builds: Builds, prunes: Prunes
) -> None:
    await filled(stack, builds)
    name = unique()
    await prunes.create(name, {"schedule": "* * * * *", "timeZone": "Asia/Kolkata"})
    waiting = await prunes.until(name, lambda seen: "nextScheduleTime" in seen.status)
    assert waiting.status["phase"] == "Pending"
    assert condition(waiting.body, "Succeeded")["reason"] == "Scheduled"
    assert condition(waiting.body, "Ready")["status"] == "True"
    assert condition(waiting.body, "Reconciling") == {}
    ended = await prunes.ended(name, seconds=75)
    assert ended.status["phase"] == "Succeeded"
    assert ended.status["reclaimedBytes"] > 0
    assert ended.status["lastScheduleTime"] == waiting.status["nextScheduleTime"]
    due, begun, then = (
        datetime.fromisoformat(ended.status[name])
        for name in ("lastScheduleTime", "startTime", "nextScheduleTime")
    )
    assert due <= begun < then
    await prunes.patch(name, {"spec": {"suspend": True}})
    held = await prunes.phase(name, "Suspended")
    assert "nextScheduleTime" not in held.status
    await prunes.patch(name, {"spec": {"suspend": False, "schedule": "0 3 1 1 *"}})
    again = await prunes.until(
        name, lambda seen: seen.status.get("nextScheduleTime", "").endswith("-12-31T21:30:00Z")
    )
    assert again.status["phase"] == "Pending"


@pytest.mark.usefixtures("pruner")
async def test_a_suspended_prune_begins_when_it_is_resumed(prunes: Prunes) -> None:
    name = unique()
    await prunes.create(name, {"suspend": True})
    held = await prunes.phase(name, "Suspended")
    assert condition(held.body, "Complete")["status"] == "Unknown"
    await prunes.patch(name, {"spec": {"suspend": False}})
    ended = await prunes.ended(name, generation=2)
    assert ended.status["phase"] == "Succeeded"
    assert prunes.phases(name) == ["Suspended", "Running", "Succeeded"]


@pytest.mark.usefixtures("pruner")
async def test_a_finished_prune_is_deleted_after_its_time(prunes: Prunes) -> None:
    name = unique()
    await prunes.create(name, {"ttlSecondsAfterFinished": 1})
    assert (await prunes.ended(name)).status["phase"] == "Succeeded"
    await prunes.gone(name, seconds=10)


@pytest.mark.usefixtures("pruner")
async def test_the_same_object_again_prunes_nothing(kubectl: Kubectl, prunes: Prunes) -> None:
    name = unique()
    await prunes.create(name, {"all": True})
    await prunes.ended(name)
    before = await prunes.get(name)
    manifest = {key: before[key] for key in ("apiVersion", "kind", "spec")}
    text = yaml.safe_dump({**manifest, "metadata": {"name": name}})
    kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", text=text)
    await run(prunes)
    assert prunes.phases(name) == ["Running", "Succeeded"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a size in words": ({"reservedSpace": "10GB"}, "write bytes, or such as 512Mi"),
    "a size that is no whole number": ({"maxUsedSpace": "1.5Gi"}, "write bytes, or such as"),
    "a size that no number holds": ({"minFreeSpace": "9999999999Ti"}, "write bytes, or such as"),
    "a number of days": ({"keepDuration": "2d"}, "write hours, minutes and seconds"),
    "a moment": ({"filters": {"until": "2020-01-01T00:00:00Z"}}, "write hours, minutes"),
    "two ages": (
        {"keepDuration": "1h", "filters": {"until": "48h"}},
        "give one of them",
    ),
    "an unknown type": ({"filters": {"type": ["layer"]}}, 'supported values: "internal"'),
    "an unknown filter": ({"filters": {"label": ["x"]}}, 'unknown field "spec.filters.label"'),
    "an id that is a program": ({"filters": {"id": ["(a+)+$"]}}, "a part of a record's id"),
    "a description of two lines": ({"filters": {"description": ["a\nb"]}}, "is one line"),
    "a schedule of four columns": ({"schedule": "0 3 * *"}, "minute, hour, day of month"),
    "a minute that never comes": ({"schedule": "60 3 * * *"}, "minute, hour, day of month"),
    "an unknown word": ({"schedule": "@reboot"}, "minute, hour, day of month"),
    "an unknown time zone": (
        {"schedule": "0 3 * * *", "timeZone": "Mars/Base"},
        "write its name, such as Europe/Berlin",
    ),
    "the API server's own time zone": (
        {"schedule": "0 3 * * *", "timeZone": "Local"},
        "write its name, such as Europe/Berlin",
    ),
    "an offset": ({"schedule": "0 3 * * *", "timeZone": "+02:00"}, "This is no time zone"),
    "a time zone without a schedule": ({"timeZone": "UTC"}, "give a schedule, or leave out"),
    "an end of what never ends": (
        {"schedule": "0 3 * * *", "ttlSecondsAfterFinished": 1},
        "never finishes",
    ),
    "no cache at all": ({"include": []}, "should have at least 1 items"),
    "a worker of two words": ({"workers": ["a b"]}, "one word"),
    "a pool with a slash": ({"pools": ["a/b"]}, "no name of a pool"),
    "the same pool twice": ({"pools": ["a", "a"]}, "Duplicate value"),
}


@pytest.mark.row("P7")
@pytest.mark.row("P9")
@pytest.mark.row("P15")
@pytest.mark.row("P16")
@pytest.mark.parametrize(("spec", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused_at_apply(
    kubectl: Kubectl, spec: dict[str, Any], sentence: str
) -> None:
    body = {
        "apiVersion": "imagewright.dev/v1alpha1",
        "kind": "BuildCachePrune",
        "metadata": {"name": "refused"},
        "spec": spec,
    }
    ended = kubectl.run("apply", "--filename=-", text=json.dumps(body))
    assert ended.returncode != 0
    assert sentence in ended.stderr


@pytest.mark.usefixtures("pruner")
async def test_a_day_that_no_year_has_fails_with_advice(prunes: Prunes) -> None:
    ended = await run(prunes, schedule="0 0 31 2 *")
    assert condition(ended.body, "Succeeded")["reason"] == "InvalidSchedule"
    assert "such as '0 3 * * *'" in condition(ended.body, "Succeeded")["message"]
    assert condition(ended.body, "Stalled")["status"] == "True"


@pytest.mark.row("P18")
@pytest.mark.usefixtures("pruner")
async def test_a_build_that_runs_is_not_disturbed(
    stack: devstack.Stack, builds: Builds, prunes: Prunes
) -> None:
    marker = str(next(_seconds))
    text = (
        f"FROM {stack.base_image}\nRUN dd if=/dev/urandom of=/f bs=1M count=2\n"
        f"RUN --mount=type=cache,target=/c sleep 3.{marker} && touch /c/g\nRUN test -s /f\n"
    )
    image = f"{stack.registry}/{builds.namespace}/during:1"
    spec = {"source": {"inline": {"files": {"Dockerfile": text}}}, "images": [image]}
    await builds.create("during", {**spec, "cache": {"noCache": True}})
    await appeared(f"3.{marker}")
    for _ in range(2):
        assert (await run(prunes, all=True)).status["phase"] == "Succeeded"
    ended = await builds.ended("during")
    assert ended.status["phase"] == "Succeeded", ended.status
    assert builds.phases("during") == ["Running", "Succeeded"]
