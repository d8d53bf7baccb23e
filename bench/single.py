"""Builds one at a time through the operator and by the direct tool, in pairs."""

import argparse
import asyncio
import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import devstack
from bench.arms import Arms, Workload, write_tree
from bench.figures import Pair, estimate, percentile, spread
from bench.processes import cpu_seconds, rss_mb
from bench.prunes import PruneArms, filling_text
from devstack.builds import Builds
from devstack.operator import OperatorProcess, start_operator
from devstack.prunes import Prunes
from devstack.webserver import serve_archive

SETTLE_SECONDS = 2.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """What a user may choose of this suite."""
    parser.add_argument("--pairs", type=int, default=40, help="pairs of each workload")
    parser.add_argument("--cancels", type=int, default=20, help="pairs of cancels")
    parser.add_argument("--cpu-builds", type=int, default=100, help="builds for CPU and writes")


async def measure(stack: devstack.Stack, folder: Path, options: argparse.Namespace) -> None:
    """All figures, in their order."""
    with operator(stack, folder) as running:
        await asyncio.sleep(SETTLE_SECONDS)
        idle = rss_mb(running.pid)
        async with Builds(str(stack.kubeconfig)) as builds:
            buildctl = (str(stack.binaries["buildctl"]), "--addr", stack.buildkit)
            arms = Arms(builds, buildctl)
            load = Path("/proc/loadavg").read_text().split()[0]
            print(f"load average at the start: {load}; {options.pairs} pairs of each workload")
            inline = inline_workload(stack, folder)
            w0 = await arms.pairs(inline, options.pairs)
            started = list(arms.running)
            tell("W0 inline, cached, pushed (against buildctl --local)", w0)
            archive = await asyncio.to_thread(serve_archive, tree(stack))
            http = await arms.pairs(
                http_workload(stack, archive.url, archive.sha256), options.pairs
            )
            archive.stop()
            tell("W0 http, cached, pushed (against buildctl with the same URL)", http)
            cpu, writes = await per_build(
                arms, inline, running, (stack.audit_log, options.cpu_builds)
            )
            w3 = await arms.pairs(sleep_workload(stack, folder, "2"), options.pairs, warm_ups=1)
            tell("W3 a step of 2 s (against buildctl --local)", w3)
            cancels = await arms.cancels(sleep_workload(stack, folder, "$N"), options.cancels)
            tell("cancel: DELETE -> process gone (against SIGTERM to buildctl)", cancels)
            async with Prunes(str(stack.kubeconfig)) as seen:
                fill = prune_filling(stack, folder)
                prunes = await PruneArms(seen, buildctl, fill).pairs(options.cancels)
            tell("prune of what a build left (against buildctl prune --all)", prunes)
            print(f"POST -> Running seen, ms min/p50/p99: {spread(started)}")
            print(f"RSS {idle:.1f} MB idle, {rss_mb(running.pid):.1f} MB after all builds")
            print(
                f"bench: r_w0={_ratio(w0):.3f} r_w0_http={_ratio(http):.3f} r_w3={_ratio(w3):.4f} "
                f"over_ms={_difference(w0):.1f} over_w3_ms={_difference(w3):.1f} "
                f"running_ms_p50={percentile(started, 50) * 1000:.1f} "
                f"writes_per_build={writes:.2f} cpu_ms_per_build={cpu:.1f} rss_idle_mb={idle:.1f} "
                f"cancel_over_ms={_difference(cancels):.1f} r_prune={_ratio(prunes):.3f}"
            )


@contextmanager
def operator(stack: devstack.Stack, folder: Path) -> Iterator[OperatorProcess]:
    """A fresh operator on the stack's one worker, ended afterwards."""
    pools = [{"workers": [stack.buildkit], "slots": 8}]
    running = start_operator(folder / "operator", stack.operator_kubeconfig, pools=pools)
    try:
        yield running
    finally:
        running.stop()


async def per_build(
    arms: Arms, workload: Workload, running: OperatorProcess, counted: tuple[Path, int]
) -> tuple[float, float]:
    """The operator's CPU-ms and API writes for each of so many builds, one after another."""
    audit_log, count = counted
    cpu, lines = cpu_seconds(running.pid), len(writes_in(audit_log))
    for _ in range(count):
        await arms.operator(workload)
    used = (cpu_seconds(running.pid) - cpu) * 1000 / count
    written = (len(writes_in(audit_log)) - lines) / count
    print(f"{count} builds one after another: {used:.1f} CPU-ms and {written:.2f} writes each")
    return used, written


def writes_in(audit_log: Path) -> list[str]:
    """The operator's writes: everything it asked for that was not a read."""
    reads = ("get ", "list ", "watch ")
    return [one for one in asked_in(audit_log) if not one.startswith(reads)]


def asked_in(audit_log: Path, since: int = 0) -> list[str]:
    """All that the operator asked for: the verb, and the path with its query.

    From the byte `since` of the log on; a line that is being written is not read yet.
    """
    with audit_log.open("rb") as log:
        log.seek(since)
        events = [json.loads(line) for line in log.read().split(b"\n")[:-1]]
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in events
        if event["user"]["username"].startswith("system:serviceaccount:")
    ]


def tree(stack: devstack.Stack) -> dict[str, str]:
    """A small context: two files on a base image, and one step."""
    dockerfile = f"FROM {stack.base_image}\nCOPY app/ /app/\nRUN cat /app/main.txt\n"
    return {"Dockerfile": dockerfile, "app/main.txt": "main\n", "app/other.txt": "other\n"}


def inline_workload(stack: devstack.Stack, folder: Path) -> Workload:
    """W0 with its files in the object; buildctl reads the same ones from disk."""
    files = tree(stack)
    local = write_tree(folder / "w0", files)
    name = f"{stack.registry}/bench/w0"
    spec = {"source": {"inline": {"files": files}}, "images": [f"{name}-op:latest"]}
    return Workload("w0", spec, [*local_arguments(local), *push(f"{name}-direct:latest")])


def http_workload(stack: devstack.Stack, url: str, sha256: str) -> Workload:
    """W0 from a URL; the daemon fetches it for both."""
    name = f"{stack.registry}/bench/http"
    spec = {"source": {"http": {"url": url, "sha256": sha256}}, "images": [f"{name}-op:latest"]}
    arguments = ["build", "--frontend", "dockerfile.v0", "--opt", f"context={url}"]
    return Workload("http", spec, [*arguments, *push(f"{name}-direct:latest")])


def sleep_workload(stack: devstack.Stack, folder: Path, seconds: str) -> Workload:
    """One step that sleeps, never found in the cache."""
    text = f"FROM {stack.base_image}\nARG N\nRUN echo $N && sleep {seconds}\n"
    local = write_tree(folder / f"sleep{seconds.strip('$')}", {"Dockerfile": text})
    spec = {"source": {"inline": {"files": {"Dockerfile": text}}}}
    return Workload("w3", spec, local_arguments(local), fresh=True)


def prune_filling(stack: devstack.Stack, folder: Path) -> list[str]:
    """What buildctl is told for a build that leaves records to prune."""
    text = filling_text(stack.base_image)
    return local_arguments(write_tree(folder / "filling", {"Dockerfile": text}))


def local_arguments(folder: Path) -> list[str]:
    """buildctl's way to build a folder."""
    local = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
    return ["build", "--frontend", "dockerfile.v0", *local]


def push(name: str) -> list[str]:
    """buildctl's way to push."""
    return ["--output", f"type=image,name={name},push=true"]


def tell(title: str, pairs: list[Pair]) -> None:
    """One workload's figures for people."""
    ratio, difference = estimate([one.ratio for one in pairs]), [one.difference for one in pairs]
    off = estimate(difference)
    print(f"{title}, n={len(pairs)}")
    print(f"  operator ms min/p50/p99: {spread([one.operator for one in pairs])}")
    print(f"  direct   ms min/p50/p99: {spread([one.direct for one in pairs])}")
    print(f"  R = {ratio}, D = {off.value:+.1f} [{off.low:+.1f}..{off.high:+.1f}] ms", flush=True)


def _ratio(pairs: list[Pair]) -> float:
    return statistics.median(one.ratio for one in pairs)


def _difference(pairs: list[Pair]) -> float:
    return statistics.median(one.difference for one in pairs)
