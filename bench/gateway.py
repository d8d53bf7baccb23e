"""Clients of BuildKit: buildctl through the gateway against buildctl at the worker itself.

The worker is dialled in two ways: by mutual TLS, which is what the gateway replaces, and on its
own socket without TLS, so that what encryption costs at both ends is in the second ratio.
"""

import argparse
import asyncio
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import devstack
from bench.arms import timed
from bench.figures import Pair, estimate, spread
from devstack.certificates import Authority
from devstack.crew import crew
from devstack.operator import start_operator
from devstack.server import free_port

MEGABYTES = 200
GATEWAY, TLS, SOCKET = "gateway", "mutual TLS", "socket"
Times = Mapping[str, list[float]]
"""Seconds of each round, by door."""


@dataclass(frozen=True, slots=True)
class Doors:
    """How buildctl reaches the worker: the arguments of each way, by its name."""

    program: str
    ways: Mapping[str, Sequence[str]]

    async def rounds(self, folder: Path, count: int, warm_ups: int) -> Times:
        """So many builds of the folder through each door; in a round each has one, in any order.

        Raises RuntimeError where buildctl fails.
        """
        times: dict[str, list[float]] = {name: [] for name in self.ways}
        for number in range(-warm_ups, count):
            for name in random.sample(list(self.ways), len(self.ways)):
                await asyncio.to_thread(freshen, folder)
                took = await self._build(name, folder)
                if number >= 0:
                    times[name].append(took)
        return times

    async def _build(self, way: str, folder: Path) -> float:
        local = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
        build = ("build", "--frontend", "dockerfile.v0", *local)
        return await timed([self.program, *self.ways[way], *build])


def freshen(folder: Path) -> None:
    """New content for the file that is the context, where there is one: all of it is sent."""
    blob = folder / "blob"
    if blob.exists():
        with blob.open("wb") as file:
            for _ in range(MEGABYTES):
                file.write(os.urandom(1 << 20))


def workload(folder: Path, dockerfile: str) -> Path:
    """A folder for buildctl."""
    folder.mkdir()
    (folder / "Dockerfile").write_text(dockerfile)
    return folder


def arguments(parser: argparse.ArgumentParser) -> None:
    """What a user may choose."""
    parser.add_argument("--pairs", type=int, default=20, help="of no-ops; of contexts half of it")


async def measure(stack: devstack.Stack, folder: Path, options: argparse.Namespace) -> None:
    """Both figures, each against both doors of the worker; the last line is for programs."""
    print(f"load average at the start: {Path('/proc/loadavg').read_text().split()[0]}")
    authority = Authority(folder / "own")
    own, port = authority.server(), free_port()
    door = f"--addr=tcp://127.0.0.1:{port}"
    files = (f"--tlscacert={own.ca}", f"--tlscert={own.cert}", f"--tlskey={own.key}")
    with crew(stack, 1, [door, *files]) as (worker,):
        running = start_operator(
            folder / "operator",
            stack.operator_kubeconfig,
            pools=[{"workers": [worker.address], "slots": 8}],
            gateway={"port": 0, **own.settings()},
        )
        try:
            named = (one["gateway_port"] for one in running.events() if "gateway_port" in one)
            client = authority.client("bench", "bench").buildctl()
            ways = {
                GATEWAY: (f"--addr=tcp://127.0.0.1:{next(named)}", *client),
                TLS: (door, *client),
                SOCKET: (f"--addr={worker.address}",),
            }
            doors = Doors(str(stack.binaries["buildctl"]), ways)
            text = f"FROM {stack.base_image}\nRUN true\n"
            noop = await doors.rounds(workload(folder / "noop", text), options.pairs, 3)
            tell("no-op through the gateway", noop)
            sent = workload(folder / "context", "FROM scratch\nCOPY blob /\n")
            (sent / "blob").touch()
            context = await doors.rounds(sent, max(3, options.pairs // 2), 1)
            tell(f"{MEGABYTES} MB of context through the gateway", context)
        finally:
            running.stop()
    figures = {
        "r_gateway_context": ratio(context, TLS),
        "r_gateway_noop": ratio(noop, TLS),
        "r_gateway_context_socket": ratio(context, SOCKET),
        "r_gateway_noop_socket": ratio(noop, SOCKET),
    }
    print("bench:", *(f"{name}={value:.3f}" for name, value in figures.items()))


def ratios(times: Times, way: str) -> list[float]:
    """The gateway's time over that of the other door, round by round."""
    return [
        Pair(operator=ours, direct=theirs).ratio
        for ours, theirs in zip(times[GATEWAY], times[way], strict=True)
    ]


def ratio(times: Times, way: str) -> float:
    """The median of them."""
    return estimate(ratios(times, way)).value


def tell(title: str, times: Times) -> None:
    """One workload's figures for people."""
    print(f"{title}, n={len(times[GATEWAY])}")
    for name, seconds in times.items():
        print(f"  {name:10} ms min/p50/p99: {spread(seconds)}")
    for way in (TLS, SOCKET):
        print(f"  R over {way:10} = {estimate(ratios(times, way))}", flush=True)
