"""Where a case is played: one daemon, one namespace, and an operator between two proxies."""

import asyncio
import itertools
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import devstack
from devstack.builds import Body, Builds, Seen
from devstack.crew import crew
from devstack.kubectl import kubectl
from devstack.prunes import Prunes
from tests.faults.apiproxy import ApiProxy, Upstream, upstream
from tests.faults.daemonproxy import DaemonProxy
from tests.faults.zygote import Forked, Zygote

RESYNC_SECONDS = 1
"""So that a lost event is made up for within a case.

By default it is 300: in a cluster an event that is lost without the watch noticing (a watch that
breaks is noticed, and a list follows) is made up for within five minutes. Until then a build that
was created waits, and one that was cancelled or deleted runs on.
"""
FROZEN_SECONDS = 0.5
"""For so long an older view is shown to an operator that writes nothing."""
LOOK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Lane:
    """What cases that are played one after the other share."""

    number: int
    stack: devstack.Stack
    server: Upstream
    daemon: str
    zygote: Zygote
    folder: Path
    builds: Builds
    prunes: Prunes
    alone: asyncio.Lock
    """Held while a prune is played: it is in no namespace, so every lane's operator sees it."""
    numbers: "itertools.count[int]"

    @property
    def step(self) -> str:
        """The argument of a `sleep` that is short, and of this lane of this process alone."""
        return f"0.4{self.number}{os.getpid()}"


@asynccontextmanager
async def lanes(stack: devstack.Stack, count: int) -> AsyncIterator[list[Lane]]:
    """So many lanes, each with a buildkitd of its own."""
    async with AsyncExitStack() as opened:
        members = opened.enter_context(crew(stack, count))
        zygote = opened.enter_context(Zygote())
        server = await opened.enter_async_context(upstream(str(stack.operator_kubeconfig)))
        prunes = await opened.enter_async_context(Prunes(str(stack.kubeconfig)))
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        alone, numbers = asyncio.Lock(), itertools.count(1)
        made = []
        for number, member in enumerate(members, start=1):
            namespace = f"faults-{secrets.token_hex(3)}-{number}"
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            text = json.dumps(body)
            await asyncio.to_thread(kubectl, stack, "apply", "--filename=-", text=text)
            builds = await opened.enter_async_context(Builds(str(stack.kubeconfig), namespace))
            made.append(
                Lane(
                    number=number,
                    stack=stack,
                    server=server,
                    daemon=member.address,
                    zygote=zygote,
                    folder=folder / str(number),
                    builds=builds,
                    prunes=prunes,
                    alone=alone,
                    numbers=numbers,
                )
            )
        yield made


@dataclass(slots=True)
class Scene:
    """One case while it is played; its operators come one after the other."""

    lane: Lane
    name: str
    """Of the object that all is about."""
    objects: Builds
    """That object, its likes and what has been seen of them."""
    api: ApiProxy
    daemon: DaemonProxy
    folder: Path
    older: str = ""
    """The resourceVersion just before the object was made."""
    operators: list[Forked] = field(default_factory=list)

    @property
    def image(self) -> str:
        """The name that is pushed."""
        return f"{self.lane.stack.registry}/{self.lane.builds.namespace}/{self.name}:1"

    @property
    def unique(self) -> str:
        """The argument of a `sleep` that lasts a day, and of this case of this process alone."""
        return f"86400.{os.getpid()}{self.name.rpartition('-')[2]:0>4}"

    @property
    def struck(self) -> bool:
        """Whether the first operator was killed."""
        return self.api.struck.is_set() or self.daemon.struck.is_set()

    @property
    def history(self) -> list[Seen]:
        """What a watch has told of the object so far."""
        return self.objects.history.get(self.name, [])

    def start(self) -> Forked:
        """Another operator over the same folders, as a container that is started again."""
        pruning = isinstance(self.objects, Prunes)
        running = self.lane.zygote.fork(
            self.folder,
            {
                "kubeconfig": str(self.folder / "kubeconfig"),
                "namespaces": [self.lane.builds.namespace],
                "prunes": pruning,
                "pools": [{"workers": [self.daemon.address], "slots": 2}],
                "sources": {"folder": str(self.folder / "sources"), "allowLoopback": True},
                "resyncSeconds": RESYNC_SECONDS,
                "drainSeconds": 0,
            },
        )
        self.operators.append(running)
        return running

    def kill(self) -> None:
        """End the operator that runs, at once."""
        self.operators[-1].kill()

    def version_before(self) -> str:
        """The resourceVersion before the operator's newest write."""
        return self.api.writes[-1].decided_on if self.api.writes else self.older

    async def version(self) -> str:
        """The resourceVersion of now."""
        listed = await self.objects._ask("GET", self.objects._path())
        return str(listed["metadata"]["resourceVersion"])

    async def object(self) -> Body | None:
        """The object; None where it is gone."""
        try:
            return await self.objects.get(self.name)
        except Exception as error:
            if getattr(error, "status", 0) == 404:
                return None
            raise

    async def buildctl(self, *arguments: str) -> bytes:
        """What it prints of the lane's daemon. Raises CalledProcessError."""
        command = [str(self.lane.stack.binaries["buildctl"]), "--addr", self.lane.daemon]
        command += arguments
        return await asyncio.to_thread(
            lambda: subprocess.run(command, check=True, capture_output=True).stdout
        )

    async def solves(self, uid: str) -> list[Body]:
        """The daemon's own records of the object's builds, the oldest first."""
        printed = await self.buildctl("debug", "histories", "--format", "{{json .}}")
        records = [
            json.loads(line)["record"] for line in printed.splitlines() if uid.encode() in line
        ]
        return sorted(records, key=lambda one: moment(one["CreatedAt"]))


def moment(told: dict[str, Any]) -> float:
    """Seconds since 1970."""
    return float(told.get("seconds", 0)) + float(told.get("nanos", 0)) / 1e9


@asynccontextmanager
async def scene(lane: Lane, workload: str, *, prunes: bool = False) -> AsyncIterator[Scene]:
    """A scene whose operator is not started yet; all that it made is gone at the end."""
    name = f"{workload}-{next(lane.numbers)}"
    folder = lane.folder / name
    folder.mkdir(parents=True)
    objects = lane.prunes if prunes else lane.builds
    async with (
        ApiProxy(lane.server, name) as api,
        DaemonProxy(lane.daemon, folder / "b.sock") as daemon,
    ):
        (folder / "kubeconfig").write_text(api.kubeconfig())
        made = Scene(lane, name, objects, api, daemon, folder)
        try:
            yield made
        finally:
            for operator in made.operators:
                operator.close()
            for left in (name, f"{name}-last"):
                seen = objects.history.get(left)
                if seen and seen[-1].type != "DELETED":
                    await objects.delete(left)
