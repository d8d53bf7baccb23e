"""Clients of BuildKit: buildctl through the gateway against buildctl on the worker itself.

The worker is dialled on its own socket, without TLS, so what mutual TLS costs at both of its ends
is in the ratio.
"""

import argparse
import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import devstack
from bench.arms import Arms, Workload
from bench.figures import Pair, estimate, spread
from devstack.builds import Builds
from devstack.certificates import Authority
from devstack.operator import start_operator

MEGABYTES = 200


class Doors(Arms):
    """Both arms are buildctl: the one that is compared goes through the gateway."""

    def __init__(self, builds: Builds, gateway: Sequence[str], direct: Sequence[str]) -> None:
        super().__init__(builds, direct)
        self._gateway = Arms(builds, gateway)

    async def operator(self, workload: Workload) -> float:
        """Seconds that buildctl takes through the gateway."""
        await asyncio.to_thread(freshen, Path(workload.name))
        return await self._gateway.direct(workload)

    async def direct(self, workload: Workload) -> float:
        """Seconds that buildctl takes on the worker's socket."""
        await asyncio.to_thread(freshen, Path(workload.name))
        return await super().direct(workload)


def freshen(folder: Path) -> None:
    """New content for the file that is the context, where there is one: all of it is sent."""
    blob = folder / "blob"
    if blob.exists():
        with blob.open("wb") as file:
            for _ in range(MEGABYTES):
                file.write(os.urandom(1 << 20))


def workload(folder: Path, dockerfile: str) -> Workload:
    """A folder for buildctl; the workload is named for it."""
    folder.mkdir()
    (folder / "Dockerfile").write_text(dockerfile)
    local = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
    return Workload(str(folder), {}, ["build", "--frontend", "dockerfile.v0", *local])


def arguments(parser: argparse.ArgumentParser) -> None:
    """What a user may choose."""
    parser.add_argument("--pairs", type=int, default=20, help="of no-ops; of contexts half of it")


async def measure(stack: devstack.Stack, folder: Path, options: argparse.Namespace) -> None:
    """Both figures; the last line is for programs."""
    pairs = options.pairs
    print(f"load average at the start: {Path('/proc/loadavg').read_text().split()[0]}")
    authority = Authority(folder / "own")
    running = start_operator(
        folder / "operator",
        stack.operator_kubeconfig,
        pools=[{"workers": [stack.buildkit], "slots": 8}],
        gateway={"port": 0, **authority.server().settings()},
    )
    try:
        port = next(one["gateway_port"] for one in running.events() if "gateway_port" in one)
        program = str(stack.binaries["buildctl"])
        through = (
            *(program, "--addr", f"tcp://127.0.0.1:{port}"),
            *authority.client("bench", "bench").buildctl(),
        )
        async with Builds(str(stack.kubeconfig)) as builds:
            doors = Doors(builds, through, (program, "--addr", stack.buildkit))
            text = f"FROM {stack.base_image}\nRUN true\n"
            noop = await doors.pairs(workload(folder / "noop", text), pairs)
            tell("no-op through the gateway", noop)
            sent = workload(folder / "context", "FROM scratch\nCOPY blob /\n")
            (folder / "context" / "blob").touch()
            context = await doors.pairs(sent, max(3, pairs // 2), warm_ups=1)
            tell(f"{MEGABYTES} MB of context through the gateway", context)
        print(f"bench: r_gateway_context={median(context):.3f} r_gateway_noop={median(noop):.3f}")
    finally:
        running.stop()


def median(pairs: list[Pair]) -> float:
    """Of the ratios."""
    return estimate([one.ratio for one in pairs]).value


def tell(title: str, pairs: list[Pair]) -> None:
    """One workload's figures for people."""
    print(f"{title} (against the worker's own socket, without TLS), n={len(pairs)}")
    print(f"  gateway ms min/p50/p99: {spread([one.operator for one in pairs])}")
    print(f"  direct  ms min/p50/p99: {spread([one.direct for one in pairs])}")
    print(f"  R = {estimate([one.ratio for one in pairs])}", flush=True)
