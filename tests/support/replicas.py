"""Several operators of one set of builds, of which one leads; each has a credential of its own."""

import asyncio
import itertools
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import devstack
from devstack.identity import ACCOUNT, NAMESPACE
from devstack.operator import OperatorProcess, start_operator
from tests.support.waiting import becomes

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
CREDENTIAL = "authentication.kubernetes.io/credential-id"


@dataclass(slots=True)
class Replicas:
    """The operators that were started, the killed ones among them."""

    stack: devstack.Stack
    folder: Path
    settings: dict[str, Any]
    started: list[OperatorProcess] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def start(self) -> OperatorProcess:
        """One more operator; returns when its watch is up."""
        folder = self.folder / f"operator-{next(self._numbers)}"
        folder.mkdir()
        kubeconfig = await asyncio.to_thread(self._credential, folder)
        running = await asyncio.to_thread(start_operator, folder, kubeconfig, **self.settings)
        self.started.append(running)
        return running

    async def leading(self, seconds: float) -> OperatorProcess:
        """The one that leads, once one does. Raises AssertionError after so many seconds."""
        await becomes(lambda: len(self._leaders()), 1, seconds)
        (leader,) = await asyncio.to_thread(self._leaders)
        return leader

    def other(self, than: OperatorProcess) -> OperatorProcess:
        """The other one that lives."""
        (other,) = (one for one in self._alive() if one.pid != than.pid)
        return other

    def stop(self) -> None:
        """End all."""
        for one in self._alive():
            one.stop()

    def _alive(self) -> list[OperatorProcess]:
        return [one for one in self.started if one.process.poll() is None]

    def _leaders(self) -> list[OperatorProcess]:
        return [one for one in self._alive() if one.metrics()["imagebuild_leader"]]

    def _credential(self, folder: Path) -> Path:
        """A kubeconfig with a new token of the operator's account: the audit log names tokens."""
        path = folder / "kubeconfig"
        config = json.loads(self.stack.operator_kubeconfig.read_text())
        admin = [str(self.stack.binaries["kubectl"]), f"--kubeconfig={self.stack.kubeconfig}"]
        token = subprocess.run(
            [*admin, "create", "token", ACCOUNT, f"--namespace={NAMESPACE}"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        config["users"][0]["user"]["token"] = token
        path.write_text(json.dumps(config))
        return path


@asynccontextmanager
async def replicas(
    stack: devstack.Stack, folder: Path, seconds: int = 12, **settings: Any
) -> AsyncIterator[Replicas]:
    """Two operators that stand for the chart's Lease, started together; stopped at the end."""
    lease = {"name": ACCOUNT, "namespace": NAMESPACE, "seconds": seconds}
    found = Replicas(stack, folder, {"lease": lease, "prunes": False, **settings})
    try:
        await asyncio.gather(found.start(), found.start())
        yield found
    finally:
        await asyncio.to_thread(found.stop)


def writers(stack: devstack.Stack, since: int, name: str = "") -> set[str]:
    """The tokens whose users wrote, to objects of this name where one is given.

    By the audit log, from its byte `since` on; the administrator, who has none, is left out.
    """
    with stack.audit_log.open("rb") as log:
        log.seek(since)
        requests = [json.loads(line) for line in log.read().split(b"\n")[:-1]]
    return {
        one["user"].get("extra", {}).get(CREDENTIAL, [""])[0]
        for one in requests
        if one["verb"] in WRITES and name in ("", one["objectRef"].get("name"))
    } - {""}


def history(stack: devstack.Stack, worker: str) -> dict[str, dict[str, Any]]:
    """What a buildkitd remembers of its builds, by their ids."""
    command = [str(stack.binaries["buildctl"]), "--addr", worker, "debug", "histories"]
    listed = subprocess.run(
        [*command, "--format", "{{json .}}"], check=True, capture_output=True, text=True
    ).stdout
    records = (json.loads(line)["record"] for line in listed.splitlines())
    return {record["Ref"]: record for record in records}
