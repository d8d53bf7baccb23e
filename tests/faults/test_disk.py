"""A worker's disk is full: room is made once, then it is told; nobody else suffers."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import devstack
from devstack.builds import Builds
from devstack.components import Place, buildkitd
from devstack.containers import remove_containers
from devstack.operator import OperatorProcess, start_operator
from devstack.server import await_ready, start
from devstack.stack import unmount
from tests.support.specs import HELLO
from tests.support.stack import Kubectl, told_of

DISK_MIB = 64
FULL = "The worker's disk is full, though its cache was pruned: give it a larger one"


@contextmanager
def small_worker(stack: devstack.Stack) -> Iterator[str]:
    """The address of a buildkitd whose disk has room for next to nothing."""
    outside = Path(tempfile.mkdtemp(prefix="small-", dir=stack.folder))
    disk = outside / "disk"
    disk.mkdir()
    image = outside / "image"
    with image.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True)
    address = f"unix://{disk / 'buildkitd.sock'}"
    command = buildkitd(Place(stack.binaries["buildkitd"], disk), address, stack.registries)
    try:
        server = await_ready(command, start(command, outside))
        try:
            use(stack, address, outside)
            yield address
        finally:
            server.stop()
            remove_containers(disk)
    finally:
        unmount(outside)
        shutil.rmtree(outside)


def use(stack: devstack.Stack, address: str, folder: Path) -> None:
    """Let the daemon build and forget, so that its databases have grown.

    A new one could not even note on a full disk what it removes, since it has no page to spare.
    """
    steps = "".join(f"COPY Dockerfile /{number}\n" for number in range(40))
    (folder / "Dockerfile").write_text(f"FROM {stack.base_image}\n{steps}")
    client = [str(stack.binaries["buildctl"]), f"--addr={address}"]
    local = [f"--local={name}={folder}" for name in ("context", "dockerfile")]
    for command in (["build", "--frontend=dockerfile.v0", *local], ["prune", "--all"]):
        subprocess.run([*client, *command], check=True, capture_output=True)


def copying(stack: devstack.Stack, mib: int, copies: int) -> dict[str, Any]:
    """A spec whose layers have so many MiB each: one that a step writes, and its copies."""
    lines = [f"FROM {stack.base_image} AS big", f"RUN head -c {mib}m /dev/urandom > /big"]
    lines += ["FROM scratch"] + [f"COPY --from=big /big /{number}" for number in range(copies)]
    return inline({"Dockerfile": "\n".join(lines)})


def inline(files: dict[str, str]) -> dict[str, Any]:
    """A spec of inline files."""
    return {"source": {"inline": {"files": files}}}


async def disk_full(operator: OperatorProcess) -> float:
    """How often the operator has met a full disk."""
    return (await asyncio.to_thread(operator.metrics))["imagebuild_disk_full_total"]


@pytest.mark.row("F14")
@pytest.mark.timeout(120)
async def test_a_full_disk_is_pruned_once_and_then_told(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl, tmp_path: Path
) -> None:
    with small_worker(stack) as address:
        operator = await asyncio.to_thread(
            start_operator,
            tmp_path,
            stack.operator_kubeconfig,
            namespaces=[builds.namespace],
            pools=[
                {"name": "default", "workers": [address], "slots": 2},
                {"name": "other", "workers": [stack.buildkit], "slots": 2},
            ],
        )
        try:
            await builds.create("fills", copying(stack, 14, 1))
            assert (await builds.ended("fills")).status["phase"] == "Succeeded"
            await builds.create("fits", copying(stack, 13, 2))
            fits = (await builds.ended("fits")).status
            assert (fits["phase"], fits["attempt"]) == ("Succeeded", 1), fits
            assert await disk_full(operator) == 1
            await builds.create("never", copying(stack, 4, 16))
            await builds.create("elsewhere", {**inline(HELLO), "pool": "other"})
            assert (await builds.ended("elsewhere")).status["phase"] == "Succeeded"
            never = (await builds.ended("never")).status
            assert never["failure"]["reason"] == "DiskFull", never
            assert never["failure"]["message"].startswith(FULL), never
            assert never["attempt"] == 1
            assert await disk_full(operator) == 2
            await told_of(kubectl, "never", "BuildStarted", "BuildFailed")
            await builds.create("after", inline(HELLO))
            assert (await builds.ended("after")).status["phase"] == "Succeeded"
        finally:
            await asyncio.to_thread(operator.stop)
