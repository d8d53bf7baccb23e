"""Secrets that come late: noticed at once, however long, and by however many, waited for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import devstack
from devstack.builds import Builds
from devstack.operator import OperatorProcess, start_operator
from imagewright.domain.plan import Plan
from imagewright.kube.client import KubeClient
from imagewright.kube.keyring import NamespaceKeyring
from imagewright.kube.lookout import EVERY_SECONDS, Lookout
from imagewright.ports import WatchedKeyring
from tests.support.makers import UID
from tests.support.proxy import ApiProxy
from tests.support.specs import HELLO, inline
from tests.support.stack import Kubectl
from tests.support.waiting import becomes, turns
from tests.support.workshop import secret
from tests.unit.reconcile.test_build import Shell, working

pytestmark = [pytest.mark.row("F40"), pytest.mark.timeout(120)]
NEEDY: dict[str, Any] = {"secrets": [{"id": "npm", "secretRef": {"name": "npm", "key": "token"}}]}
SOON_SECONDS = 2
CROWD, QUESTIONS = 40, 4


class LateShell(Shell):
    """The shell over the Secrets of a real API server, with a clock that a test moves."""

    def __init__(self, client: KubeClient) -> None:
        super().__init__()
        self.client, self.lookout = client, Lookout(client.version)

    def keyrings(self, namespace: str, plan: Plan) -> WatchedKeyring:
        return NamespaceKeyring(self.client, namespace, plan, self.lookout)

    def _look_in(self, uid: str, seconds: float) -> None:
        self.queue.add_in(uid, seconds)


@contextlib.asynccontextmanager
async def late(client: KubeClient) -> AsyncIterator[LateShell]:
    """Such a shell, with its queue and its lookout running."""
    shell = LateShell(client)
    running = asyncio.create_task(shell.lookout.run())
    try:
        async with working(shell):
            yield shell
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.mark.parametrize("lacking", ["the Secret", "its key"])
async def test_after_a_wait_of_an_hour_a_secret_is_noticed_as_soon_as_after_one_of_a_second(
    stack: devstack.Stack, kubectl: Kubectl, namespace: str, lacking: str
) -> None:
    if lacking == "its key":
        await asyncio.to_thread(secret, kubectl, "npm", {"other": "x"})
    async with (
        KubeClient(str(stack.operator_kubeconfig)) as client,
        late(client) as shell,
    ):
        shell.apply({**NEEDY, "activeDeadlineSeconds": 7200}, namespace=namespace)
        await turns(lambda: shell.status().get("phase") == "Pending", 10)
        assert shell.status()["conditions"][0]["reason"] == "SecretNotFound"
        shell.now += timedelta(hours=1)
        # It is looked at, for whatever reason, and goes on to wait.
        shell.queue.add(UID)
        await shell.queue.idle()
        await asyncio.to_thread(secret, kubectl, "npm", {"token": "x"})
        await turns(lambda: shell.status()["phase"] == "Succeeded", SOON_SECONDS)
        assert len(shell.lookout) == 0


@contextlib.asynccontextmanager
async def through_a_proxy(
    stack: devstack.Stack, namespace: str, folder: Path
) -> AsyncIterator[tuple[ApiProxy, OperatorProcess]]:
    """An operator for the namespace, and the proxy that sees what it asks."""
    async with ApiProxy(str(stack.operator_kubeconfig)) as proxy:
        config = folder / "proxy.kubeconfig"
        config.write_text(proxy.kubeconfig())
        running = await asyncio.to_thread(
            start_operator,
            folder / "operator",
            config,
            pools=[{"workers": [stack.buildkit], "slots": 8}],
            namespaces=[namespace],
            prunes=False,
        )
        try:
            yield proxy, running
        finally:
            await asyncio.to_thread(running.stop)


async def test_a_crowd_that_waits_for_one_secret_asks_as_often_as_one_does(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl, tmp_path: Path
) -> None:
    path = f"/api/v1/namespaces/{builds.namespace}/secrets/npm"
    names = [f"waits-{number}" for number in range(CROWD)]
    async with through_a_proxy(stack, builds.namespace, tmp_path) as (proxy, _):
        for name in names:
            await builds.create(name, inline(HELLO, **NEEDY))
        for name in names:
            waiting = await builds.phase(name, "Pending")
            assert waiting.status["conditions"][0]["reason"] == "SecretNotFound"
        before = len(proxy.asked)

        def questions() -> list[float]:
            return [one.at for one in proxy.asked[before:] if one.path == path]

        await becomes(lambda: len(questions()) >= QUESTIONS, expected=True)
        times = questions()
        assert times[-1] - times[0] >= EVERY_SECONDS * (len(times) - 1)
        await asyncio.to_thread(secret, kubectl, "npm", {"token": "x"})
        for name in names:
            assert (await builds.ended(name)).status["phase"] == "Succeeded"
