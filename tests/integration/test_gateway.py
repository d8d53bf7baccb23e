"""buildctl and docker buildx through the gateway of a real operator, on a real buildkitd."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import devstack
from bench.processes import appeared, vanished
from devstack.builds import Builds
from devstack.certificates import Authority, Identity
from devstack.operator import OperatorProcess, start_operator
from tests.support.specs import numbers
from tests.support.waiting import becomes

pytestmark = [pytest.mark.row("seed-7")]
_seconds = numbers(610)
DEADLINE = 30


@dataclass(frozen=True, slots=True)
class Ended:
    """A client that has ended: its status, and all that it printed."""

    status: int | None
    said: str


class Client:
    """Programs that build, under one certificate."""

    def __init__(self, stack: devstack.Stack, port: int, identity: Identity, folder: Path) -> None:
        self._stack, self._port, self._identity = stack, port, identity
        self._environment = {
            **os.environ,
            "BUILDX_CONFIG": str(folder / "buildx"),
            "DOCKER_CONFIG": str(folder / "docker"),
        }

    async def buildctl(self, *arguments: str) -> asyncio.subprocess.Process:
        """Started through the gateway."""
        where = ["--addr", f"tcp://127.0.0.1:{self._port}", *self._identity.buildctl()]
        return await self._start("buildctl", *where, *arguments)

    async def buildx(self, *arguments: str) -> asyncio.subprocess.Process:
        """Started, with whatever builder the arguments name."""
        return await self._start("docker-buildx", *arguments)

    async def builder(self, name: str) -> None:
        """What buildx calls a builder: the gateway under a name."""
        files = self._identity
        options = f"cacert={files.ca},cert={files.cert},key={files.key},servername=localhost"
        made = await ended(
            await self.buildx(
                *("create", "--name", name, "--driver", "remote", "--driver-opt", options),
                f"tcp://127.0.0.1:{self._port}",
            )
        )
        assert made.status == 0, made.said

    async def _start(self, program: str, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            self._stack.binaries[program],
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
        )


async def ended(process: asyncio.subprocess.Process, seconds: float = DEADLINE) -> Ended:
    """The client once it has ended. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        said, _ = await process.communicate()
    return Ended(process.returncode, said.decode())


@dataclass(frozen=True, slots=True)
class House:
    """An operator with a gateway: two slots, and room for one client that waits."""

    stack: devstack.Stack
    running: OperatorProcess
    authority: Authority
    folder: Path
    port: int

    def client(self, name: str = "dev", organization: str | None = "team-a") -> Client:
        """Somebody who is let in."""
        return Client(
            self.stack, self.port, self.authority.client(name, organization), self.folder
        )

    async def count(self, state: str) -> int:
        """Clients in that state."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.running.ops}/metrics") as answer,
        ):
            text = await answer.text()
        found = re.search(rf'gateway_connections{{[^}}]*state="{state}"}} ([0-9]+)', text)
        return int(found[1]) if found else 0

    async def comes_to(self, busy: int, waiting: int) -> None:
        """Until so many clients have a slot, and so many wait. Raises TimeoutError."""
        async with asyncio.timeout(DEADLINE):
            while (await self.count("busy"), await self.count("waiting")) != (busy, waiting):
                await asyncio.sleep(0.05)


Opened = Callable[..., House]


@pytest.fixture
def opened(stack: devstack.Stack, tmp_path: Path) -> Iterator[Opened]:
    """Opens houses: an operator whose gateway has these settings, of this worker."""
    houses: list[House] = []

    def open_house(worker: str = "", **settings: Any) -> House:
        authority = Authority(tmp_path / "own")
        running = start_operator(
            tmp_path / "operator",
            stack.operator_kubeconfig,
            pools=[{"workers": [worker or stack.buildkit], "slots": 2}],
            gateway={"port": 0, **authority.server().settings(), **settings},
        )
        ports = (event.get("gateway_port") for event in running.events())
        port = next(port for port in ports if port)
        houses.append(House(stack, running, authority, tmp_path, port))
        return houses[-1]

    yield open_house
    for house in houses:
        house.running.stop()


def local(folder: Path, dockerfile: str) -> list[str]:
    """buildctl's arguments for that Dockerfile."""
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)
    where = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
    return ["build", "--frontend", "dockerfile.v0", *where]


@pytest.fixture
async def sleeper(stack: devstack.Stack, tmp_path: Path) -> AsyncIterator[Callable[[Client], Any]]:
    """Starts builds that sleep until they are ended; yields the client and the step's pid."""
    started: list[asyncio.subprocess.Process] = []

    async def start(client: Client) -> tuple[asyncio.subprocess.Process, int]:
        seconds = str(next(_seconds))
        text = f"FROM {stack.base_image}\nRUN sleep {seconds}\n"
        process = await client.buildctl(*local(tmp_path / f"sleep-{seconds}", text))
        started.append(process)
        return process, await appeared(seconds)

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_buildctl_builds_and_pushes(
    opened: Opened, stack: devstack.Stack, tmp_path: Path
) -> None:
    client = opened().client()
    name = f"{stack.registry}/gateway/buildctl:1"
    text = f"FROM {stack.base_image}\nCOPY blob /\nRUN wc -c /blob\n"
    arguments = local(tmp_path / "context", text)
    (tmp_path / "context" / "blob").write_bytes(os.urandom(8 << 20))
    output = ["--output", f"type=image,name={name},push=true"]
    built = await ended(await client.buildctl(*arguments, *output))
    assert built.status == 0, built.said
    assert "8388608 /blob" in built.said


async def test_the_first_failed_step_is_told_as_without_a_gateway(
    opened: Opened, stack: devstack.Stack, tmp_path: Path
) -> None:
    text = f"FROM {stack.base_image}\nRUN echo so it is && exit 7\n"
    client = opened().client()
    built = await ended(await client.buildctl(*local(tmp_path / "fails", text)))
    assert built.status == 1
    assert "exit code: 7" in built.said


async def test_several_buildx_build_at_once(
    opened: Opened, stack: devstack.Stack, tmp_path: Path
) -> None:
    house = opened()
    client = house.client()
    await client.builder("gate")
    folders = []
    for number in range(3):
        folders.append(tmp_path / f"x{number}")
        text = f"FROM {stack.base_image}\nRUN echo number {number} {next(_seconds)} && sleep 1\n"
        local(folders[-1], text)
    command = ("build", "--builder", "gate", "--progress", "plain")
    processes = [await client.buildx(*command, str(folder)) for folder in folders]
    for number, built in enumerate(await asyncio.gather(*map(ended, processes))):
        assert built.status == 0, built.said
        assert f"number {number}" in built.said
    used = await ended(await client.buildx("du", "--builder", "gate"))
    assert (used.status, "Reclaimable" in used.said) == (0, True)
    await house.comes_to(busy=0, waiting=0)


async def test_buildctl_prunes(opened: Opened, stack: devstack.Stack, tmp_path: Path) -> None:
    client = opened().client()
    text = f"FROM {stack.base_image}\nRUN echo {next(_seconds)} > /left\n"
    assert (await ended(await client.buildctl(*local(tmp_path / "left", text)))).status == 0
    pruned = await ended(await client.buildctl("prune", "--all"))
    assert pruned.status == 0, pruned.said
    assert re.search(r"Total:\s+[1-9]", pruned.said)


@pytest.mark.parametrize("foreign", [True, False], ids=["of a foreign authority", "at all"])
async def test_without_a_certificate_of_its_own_authority(
    opened: Opened, tmp_path: Path, foreign: bool
) -> None:
    house = opened()
    own = house.authority.client("dev")
    if foreign:
        other = Authority(tmp_path / "foreign").client("dev")
        identity = Identity(own.ca, other.cert, other.key)
        arguments = identity.buildctl()
    else:
        arguments = [f"--tlscacert={own.ca}"]
    process = await asyncio.create_subprocess_exec(
        house.stack.binaries["buildctl"],
        *("--addr", f"tcp://127.0.0.1:{house.port}", *arguments, "du"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    refused = await ended(process)
    assert (refused.status, "Reclaimable" in refused.said) == (1, False)
    assert "failed to call diskusage: Unavailable" in refused.said

    def reasons() -> set[str]:
        return {event["reason"] for event in house.running.events() if "reason" in event}

    # The client may be gone before the operator has written why.
    await becomes(reasons, {"tls"}, 5)
    assert await house.count("busy") == 0


async def test_a_client_waits_for_a_slot_and_one_too_many_is_told_why(
    opened: Opened, sleeper: Callable[[Client], Any]
) -> None:
    house = opened(waitingPerTenant=1)
    first, _ = await sleeper(house.client("one"))
    await sleeper(house.client("two"))
    waits = await house.client("three").buildctl("du")
    await house.comes_to(busy=2, waiting=1)
    refused = await ended(await house.client("four").buildctl("du"))
    assert refused.status == 1
    assert "ResourceExhausted" in refused.said
    assert (
        "All slots of pool default are taken, and so are the 1 of team-a to wait for one: try "
        "again later." in refused.said
    )
    assert waits.returncode is None
    first.kill()
    served = await ended(waits)
    assert (served.status, "Reclaimable" in served.said) == (0, True)


async def test_builds_and_clients_share_the_slots(
    opened: Opened, stack: devstack.Stack, builds: Builds, sleeper: Callable[[Client], Any]
) -> None:
    house = opened()
    first, _ = await sleeper(house.client("one"))
    await sleeper(house.client("two"))
    text = f"FROM {stack.base_image}\nRUN echo {next(_seconds)}\n"
    second = await house.client("three").buildctl("du")
    await house.comes_to(busy=2, waiting=1)
    await builds.create("waits", {"source": {"inline": {"files": {"Dockerfile": text}}}})
    pending = await builds.phase("waits", "Pending")
    assert "slot of pool default" in json.dumps(pending.status)
    # It came later, but its namespace holds nothing, and team-a still has a slot.
    first.kill()
    done = await builds.ended("waits")
    assert done.status["phase"] == "Succeeded"
    assert (await ended(second)).status == 0


async def test_a_worker_that_is_killed_ends_its_client_and_the_next_is_served(
    opened: Opened, stack: devstack.Stack, sleeper: Callable[[Client], Any]
) -> None:
    house = opened()
    process, _ = await sleeper(house.client())
    stack.servers["buildkitd"].kill()
    try:
        # The client connects again by itself, and waits with its next call for a worker.
        await house.comes_to(busy=0, waiting=1)
        patient = await house.client().buildctl("du")
        await house.comes_to(busy=0, waiting=2)
    finally:
        await asyncio.to_thread(stack.start_buildkitd)
    served, broken = await ended(patient), await ended(process)
    assert served.status == 0, served.said
    assert broken.status == 1
    assert "Unavailable" in broken.said, broken.said


async def test_a_running_build_ends_before_the_operator_does(
    opened: Opened, stack: devstack.Stack, tmp_path: Path
) -> None:
    house = opened()
    seconds = f"2.{next(_seconds)}"
    text = f"FROM {stack.base_image}\nRUN sleep {seconds} && echo all of it\n"
    process = await house.client().buildctl(*local(tmp_path / "runs", text))
    await appeared(seconds)
    house.running.process.send_signal(signal.SIGTERM)
    built = await ended(process)
    assert built.status == 0, built.said
    assert "all of it" in built.said
    assert await asyncio.to_thread(house.running.process.wait, DEADLINE) == 0


async def test_a_client_that_is_killed_ends_its_build(
    opened: Opened, sleeper: Callable[[Client], Any]
) -> None:
    house = opened()
    process, pid = await sleeper(house.client())
    process.kill()
    await vanished(pid)
    await house.comes_to(busy=0, waiting=0)
