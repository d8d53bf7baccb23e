"""What an operator is given to do while it is struck: seven short stories with known ends."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bench.processes import appeared, find
from devstack.builds import Seen, condition
from tests.faults.scene import Scene

Body = dict[str, Any]
SMALL = {"Dockerfile": "FROM scratch\nCOPY hello.txt /\n", "hello.txt": "hello\n"}
EPOCH = {"sourceDateEpoch": 0, "rewriteTimestamp": True}
"""Equal digests for equal images, whenever they are built."""
STEP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Workload:
    """A story: what is created, what its user does next, and which event is its end.

    `before` is done before the operator is started.
    """

    name: str
    spec: Callable[[Scene], Body]
    end: Callable[[Seen], bool]
    act: Callable[[Scene], Awaitable[None]] | None = None
    prunes: bool = False
    before: Callable[[Scene], Awaitable[None]] | None = None


def build(files: Body, **more: Any) -> Body:
    """A spec of inline files."""
    return {"source": {"inline": {"files": files}}, "output": EPOCH, **more}


def small(scene: Scene) -> Body:
    """An image without a step, pushed by one name."""
    return build(SMALL, images=[scene.image])


def failing(scene: Scene) -> Body:
    """A step that fails."""
    text = f"FROM {scene.lane.stack.base_image}\nRUN echo no >&2; exit 7\n"
    return build({"Dockerfile": text})


def stepping(scene: Scene) -> Body:
    """A step of half a second that is always run, and an image."""
    text = f"FROM {scene.lane.stack.base_image}\nRUN sleep {scene.lane.step}\n"
    return build({"Dockerfile": text}, cache={"noCache": True}, images=[scene.image])


def endless(scene: Scene) -> Body:
    """A step that never ends."""
    text = f"FROM {scene.lane.stack.base_image}\nRUN sleep {scene.unique}\n"
    return build({"Dockerfile": text})


def ended(generation: int) -> Callable[[Seen], bool]:
    """Whether the event says that this generation has ended."""
    return lambda seen: (
        seen.type != "DELETED"
        and seen.status.get("observedGeneration", -1) >= generation
        and condition(seen.body, "Complete").get("status") == "True"
    )


async def sever(scene: Scene) -> None:
    """Break the first attempt in its step; one whose operator was killed is broken already."""
    broken = asyncio.create_task(appeared(scene.lane.step, STEP_SECONDS))
    while not broken.done() and not scene.struck:
        await asyncio.wait([broken], timeout=0.01)
    broken.cancel()
    await asyncio.wait([broken])
    if not scene.struck:
        scene.daemon.sever()


async def cancel(scene: Scene) -> None:
    """Cancel it in its step."""
    await appeared(scene.unique, STEP_SECONDS)
    await scene.objects.patch(scene.name, {"spec": {"cancel": True}})


async def delete(scene: Scene) -> None:
    """Delete it in its step."""
    await appeared(scene.unique, STEP_SECONDS)
    await scene.objects.delete(scene.name)


async def supersede(scene: Scene) -> None:
    """Ask for something else in its step."""
    await appeared(scene.unique, STEP_SECONDS)
    await scene.objects.patch(scene.name, {"spec": small(scene)})


async def fill(scene: Scene) -> None:
    """A cache of one step: what other cases left would take its time to go."""
    await scene.buildctl("prune", "--all")
    folder = scene.folder / "context"
    folder.mkdir()
    text = f"FROM {scene.lane.stack.base_image}\nRUN echo {scene.name} > /a\n"
    (folder / "Dockerfile").write_text(text)
    local = [f"--local=context={folder}", f"--local=dockerfile={folder}"]
    await scene.buildctl("build", "--frontend=dockerfile.v0", *local)


WORKLOADS = {
    one.name: one
    for one in (
        Workload("success", small, ended(1)),
        Workload("failure", failing, ended(1)),
        Workload("retry", stepping, ended(1), sever),
        Workload("cancel", endless, ended(2), cancel),
        Workload("delete", endless, lambda seen: seen.type == "DELETED", delete),
        Workload("supersede", endless, ended(2), supersede),
        Workload("prune", lambda _: {}, ended(1), prunes=True, before=fill),
    )
}


def running(scene: Scene) -> bool:
    """Whether a step of the case that never ends runs now."""
    return find(scene.unique) is not None
