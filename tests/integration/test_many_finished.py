"""A new version of the operator comes to a cluster with months of finished builds."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import devstack
from bench.filling import NAMESPACE, archive, copies
from bench.single import asked_in, writes_in
from devstack.builds import Body, Builds, Seen
from devstack.etcd import Etcd
from devstack.operator import OperatorProcess, start_operator
from tests.support.specs import HELLO, inline
from tests.support.waiting import becomes

COUNT = 3000
LISTS = 4
"""That of the watch and the next ones in turn: when the last begins, two have been taken in."""


async def operate(
    stack: devstack.Stack, builds: Builds, folder: Path, **more: Any
) -> OperatorProcess:
    """An operator for the archive and the test's own namespace."""
    return await asyncio.to_thread(
        start_operator,
        folder,
        stack.operator_kubeconfig,
        namespaces=[builds.namespace, NAMESPACE],
        pools=[{"workers": [stack.buildkit], "slots": 2}],
        **more,
    )


async def built(builds: Builds, name: str) -> Seen:
    """The end of a small build."""
    await builds.create(name, inline(HELLO))
    ended = await builds.ended(name)
    assert ended.status["phase"] == "Succeeded", ended.status
    return ended


def of_another_version(body: Body) -> Body:
    """The same build as a version would have left it that says less, in other words."""
    [first, *_] = body["status"]["conditions"]
    conditions = [{**first, "message": "Done."}]
    return {**body, "status": {**body["status"], "conditions": conditions}}


def on_archive(requests: list[str]) -> list[str]:
    """Those that are about what is finished."""
    return [one for one in requests if f"/namespaces/{NAMESPACE}/" in one]


def lists_begun(requests: list[str]) -> int:
    """How often the archive was listed from its beginning."""
    lists = [one for one in on_archive(requests) if one.startswith("list ")]
    return len([one for one in lists if "continue=" not in one])


@pytest.mark.row("F8")
@pytest.mark.timeout(180)
async def test_a_new_version_writes_none_of_thousands_that_are_finished(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    operator = await operate(stack, builds, tmp_path / "old")
    like = of_another_version((await built(builds, "done")).body)
    await asyncio.to_thread(operator.stop)
    async with (
        archive(str(stack.kubeconfig), like) as finished,
        aiohttp.ClientSession() as session,
        copies(finished, Etcd(session, stack.etcd), COUNT),
    ):
        before, log = await finished.versions(), stack.audit_log
        since = log.stat().st_size
        operator = await operate(stack, builds, tmp_path / "new", resyncSeconds=1)
        try:
            await built(builds, "fresh")
            await becomes(lambda: lists_begun(asked_in(log, since)) >= LISTS, expected=True)
        finally:
            await asyncio.to_thread(operator.stop)
        assert len(before) == COUNT
        assert await finished.versions() == before
    assert on_archive(writes_in(log)) == []
