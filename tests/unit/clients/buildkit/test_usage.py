"""The cache's side of the control API: records, prunes, workers, and which daemons know what."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from imagewright.clients.buildkit.control import CONTROL, Control
from imagewright.clients.buildkit.errors import SolveError, Unreachable
from imagewright.clients.buildkit.proto import control_pb2, ops_pb2
from imagewright.clients.buildkit.usage import Prune, Record, prune_message, record_of
from imagewright.clients.buildkit.workers import (
    DESCRIPTIONS,
    SPACE_LIMITS,
    WorkerInfo,
    is_since,
    worker_of,
)
from tests.support.grpc_daemon import Answer, Daemon, serve_daemon


def test_a_record_keeps_all_that_was_said() -> None:
    message = control_pb2.UsageRecord(
        ID="a", Size=7, InUse=True, Mutable=True, Shared=True, RecordType="regular"
    )
    message.Description, message.UsageCount = "mount / from exec", 3
    message.Parents.extend(["b", "c"])
    message.CreatedAt.FromNanoseconds(1_500_000_000)
    message.LastUsedAt.FromSeconds(9)
    expected = Record(
        "a", 7, True, True, True, "regular", "mount / from exec", 1.5, 9.0, 3, ("b", "c")
    )

    assert record_of(message) == expected


def test_a_record_of_an_old_daemon_has_its_one_parent_and_no_times() -> None:
    found = record_of(control_pb2.UsageRecord(ID="a", Parent="b"))

    assert (found.parents, found.created, found.last_used) == (("b",), None, None)


def test_a_prune_is_sent_in_nanoseconds_and_bytes() -> None:
    message = prune_message(Prune(("type==regular", "inuse"), True, 1.5, 1, 2, 3))

    assert list(message.filter) == ["type==regular", "inuse"]
    assert message.all
    assert message.keepDuration == 1_500_000_000
    spaces = (message.reservedSpace, message.maxUsedSpace, message.minFreeSpace)
    assert spaces == (1, 2, 3)


def test_a_prune_without_conditions_sets_nothing() -> None:
    assert prune_message(Prune()).SerializeToString() == b""


def test_a_worker_is_known_by_its_platforms_and_labels() -> None:
    message = control_pb2.WorkerRecord(ID="w", Labels={"a": "b"})
    message.platforms.add(OS="linux", Architecture="amd64")
    message.platforms.append(ops_pb2.Platform(OS="linux", Architecture="arm", Variant="v7"))
    message.buildkitVersion.version = "v0.17.1"
    message.gcPolicy.add(maxUsedSpace=1)
    platforms = ("linux/amd64", "linux/arm/v7")

    assert worker_of(message) == WorkerInfo("w", {"a": "b"}, platforms, "v0.17.1", True)


@pytest.mark.parametrize(
    ("version", "known"),
    [
        pytest.param("v0.32.2", True, id="a new daemon"),
        pytest.param("v0.17.0", True, id="the first that knows them"),
        pytest.param("1.0.0", True, id="one of another major version"),
        pytest.param("v0.16.0", False, id="the last that does not"),
        pytest.param("v0.0.0+unknown", False, id="a distribution's build says nothing"),
        pytest.param("", False, id="one that cannot say it"),
        pytest.param("unknown", False, id="a text that is no version"),
    ],
)
def test_a_version_tells_whether_limits_of_space_are_read(version: str, known: bool) -> None:
    assert is_since(version, SPACE_LIMITS) is known


Known = tuple[Control, dict[str, Answer]]


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Known]:
    """A client of a daemon, and what that answers: the test fills it in."""
    answers: dict[str, Answer] = {}
    async with serve_daemon(tmp_path / "d.sock", Daemon(answers)) as address:
        control = Control(address)
        yield control, answers
        await control.close()


def workers(version: str, max_used: int = 0) -> Answer:
    """One worker of this version, with a rule that bounds its space."""
    message = control_pb2.ListWorkersResponse()
    record = message.record.add(ID="w")
    record.buildkitVersion.version = version
    record.gcPolicy.add(maxUsedSpace=max_used)

    async def answer(request: bytes, context: Any) -> bytes:
        return message.SerializeToString()

    return answer


@pytest.mark.parametrize("version", ["v0.10.0", ""])
async def test_a_daemon_without_info_tells_its_version_by_its_workers(
    daemon: Known, version: str
) -> None:
    control, answers = daemon
    answers[CONTROL + "ListWorkers"] = workers(version)

    assert await control.info() == version


@pytest.mark.parametrize(
    ("version", "max_used", "oldest", "known"),
    [
        pytest.param("v0.18.0", 0, SPACE_LIMITS, True, id="by its version"),
        pytest.param("v0.0.0+unknown", 5, SPACE_LIMITS, True, id="by its own rules"),
        pytest.param("v0.0.0+unknown", 0, SPACE_LIMITS, False, id="not without a proof"),
        pytest.param("v0.14.1", 0, DESCRIPTIONS, True, id="the first that reads descriptions"),
        pytest.param("v0.13.2", 0, DESCRIPTIONS, False, id="the last that does not"),
        pytest.param("v0.0.0+unknown", 5, (0, 18), False, id="rules prove no later version"),
    ],
)
async def test_a_daemon_is_known_to_be_new_enough(
    daemon: Known, version: str, max_used: int, oldest: tuple[int, int], known: bool
) -> None:
    control, answers = daemon
    answers[CONTROL + "ListWorkers"] = workers(version, max_used)

    assert await control.is_since(oldest) is known


async def test_what_was_pruned_comes_back_record_by_record(daemon: Known) -> None:
    control, answers = daemon

    async def prune(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for one in control_pb2.PruneRequest.FromString(request).filter:
            yield control_pb2.UsageRecord(ID=one, Size=2).SerializeToString()

    answers[CONTROL + "Prune"] = prune

    assert await control.prune(Prune(("a", "b"))) == (Record("a", 2), Record("b", 2))


async def test_a_prune_that_fails_midway_fails(daemon: Known) -> None:
    control, answers = daemon

    async def prune(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield control_pb2.UsageRecord(ID="a").SerializeToString()
        await context.abort(grpc.StatusCode.UNKNOWN, "filters: parse error")

    answers[CONTROL + "Prune"] = prune

    with pytest.raises(SolveError, match="filters: parse error"):
        await control.prune(Prune())


async def test_nobody_there_is_an_outage_for_all_questions(tmp_path: Path) -> None:
    control = Control(f"unix://{tmp_path}/nobody.sock")
    for asked in (control.disk_usage(), control.prune(Prune()), control.workers()):
        with pytest.raises(Unreachable):
            await asked
    await control.close()
