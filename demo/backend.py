"""What a Docker Engine adds: its classic builder, squash, names in private registries, prune."""

import asyncio
import json
from pathlib import Path
from typing import Any

import devstack
from demo.cluster import NAMESPACE, kubectl
from demo.page import Page
from devstack.builds import Builds, condition
from devstack.images import crane, digest_of
from devstack.operator import start_operator
from devstack.prunes import Prunes
from devstack.registries import PASSWORD, USERNAME

STEPS = """\
FROM {base}
RUN echo one > /one && echo temporary > /temporary
RUN rm /temporary && echo two > /two
RUN echo three > /three
"""


async def show_backend(stack: devstack.Stack, folder: Path, page: Page) -> None:
    """All scenes, on one operator with a worker of each kind."""
    page.title("A second operator: with a BuildKit daemon and a Docker Engine as its workers")
    engine = await asyncio.to_thread(stack.engine, "new", page.say)
    operator = await asyncio.to_thread(
        start_operator,
        folder / "backend",
        stack.operator_kubeconfig,
        pools=[{"workers": [stack.buildkit, f"docker+{engine.address}"], "slots": 2}],
    )
    try:
        async with (
            Builds(str(stack.kubeconfig), NAMESPACE) as builds,
            Prunes(str(stack.kubeconfig)) as prunes,
        ):
            await squashed(stack, builds, page)
            await both_builders(stack, builds, page)
            await private_registry(stack, builds, page)
            await pruned(stack, builds, prunes, page)
    finally:
        await asyncio.to_thread(operator.stop)


async def squashed(stack: devstack.Stack, builds: Builds, page: Page) -> None:
    """The same steps, plain and squashed, by each builder."""
    page.title("(f) squash: one layer above the base image")
    base = len(layers(stack, "busybox:latest"))
    for builder in ("classic", "buildkit"):
        counts = []
        for squash in (False, True):
            name = f"squash/{builder}:{'one' if squash else 'many'}"
            spec = {**dockerfile(stack), "builder": builder, "squash": squash}
            ended = await built(stack, builds, name, spec)
            counts.append(len(layers(stack, name)))
            page.same(
                "status.imageDigest",
                ended.get("imageDigest"),
                "crane digest",
                digest_of(stack, f"{stack.registry}/{name}"),
            )
        page.say(f"{builder}: {counts[0]} layers before, {counts[1]} after; the base has {base}")
        page.check(f"{builder}: base + 1 layers", counts[1] == base + 1)


async def both_builders(stack: devstack.Stack, builds: Builds, page: Page) -> None:
    """One Dockerfile, two builders, the same files."""
    page.title("(g) the same Dockerfile by both builders")
    found = {}
    for builder in ("buildkit", "classic"):
        name = f"both/{builder}:1"
        ended = await built(stack, builds, name, {**dockerfile(stack), "builder": builder})
        page.say(f"{builder}: {ended['phase']}, {ended.get('imageDigest')}")
        config = json.loads(crane(stack, "config", f"{stack.registry}/{name}"))
        found[builder] = (config["architecture"], config["config"].get("Cmd"))
        page.check(f"{builder} built it", ended["phase"] == "Succeeded")
    page.check("both images start the same", found["buildkit"] == found["classic"])


async def private_registry(stack: devstack.Stack, builds: Builds, page: Page) -> None:
    """A build is applied, and the Secret that it needs only after it."""
    page.title("(h) a private registry, and a Secret that comes after the build")
    host = stack.registries.hosts["token"]
    name = f"{host}/private/app:1"
    files = {"Dockerfile": "FROM scratch\nCOPY app /\n", "app": "private\n"}
    spec: dict[str, Any] = {
        "source": {"inline": {"files": files}},
        "images": [name],
        "registryAuth": [{"secretRef": {"name": "registry"}}],
    }
    await builds.create("private", spec)
    waiting = await builds.phase("private", "Pending")
    page.say(f"Pending: {condition(waiting.body, 'Succeeded')['message']}")
    login = [f"--docker-username={USERNAME}", f"--docker-password={PASSWORD}"]
    # A user would read the password from a file; this one is of a throw-away registry.
    kubectl(
        stack, "create", "secret", "docker-registry", "registry", f"--docker-server={host}", *login
    )
    ended = (await builds.ended("private")).status
    page.say(f"{ended['phase']}: {ended.get('images', [{}])[0].get('reference')}")
    page.check("it waited, and went on by itself", "Pending" in builds.phases("private"))
    page.check("it was pushed", ended["phase"] == "Succeeded")
    page.check("the password is not in the object", PASSWORD not in json.dumps(ended))


async def pruned(stack: devstack.Stack, builds: Builds, prunes: Prunes, page: Page) -> None:
    """What each worker gives back."""
    page.title("(i) kubectl apply of a BuildCachePrune")
    # Two at a time, so that each worker has one, and something in its cache.
    slow = "FROM {base}\nRUN sleep 1 && head -c 1000000 /dev/urandom > /random\n"
    names = (f"cache/{name}:1" for name in "ab")
    await asyncio.gather(*(built(stack, builds, one, dockerfile(stack, slow)) for one in names))
    await prunes.create("demo", {"all": True})
    ended = (await prunes.ended("demo")).status
    for target in ended.get("targets", []):
        where = target.get("worker") or "the operator itself"
        page.say(f"{target['kind']:9} {target.get('reclaimedBytes', 0):>12,} bytes  {where}")
    page.say(f"together {ended.get('reclaimedBytes', 0):,} bytes")
    page.check("every worker answered", ended["phase"] == "Succeeded")
    workers = [target for target in ended.get("targets", []) if target.get("worker")]
    given = [target.get("reclaimedBytes", 0) > 0 for target in workers]
    page.check("both workers gave something back", given == [True, True])
    await prunes.delete("demo")


async def built(
    stack: devstack.Stack, builds: Builds, name: str, spec: dict[str, Any]
) -> dict[str, Any]:
    """The status of a build's end; its object is named after the image."""
    own = name.replace("/", "-").replace(":", "-")
    await builds.create(own, {**spec, "images": [f"{stack.registry}/{name}"]})
    return (await builds.ended(own)).status


def dockerfile(stack: devstack.Stack, text: str = STEPS) -> dict[str, Any]:
    """A spec of one Dockerfile on the stack's base image."""
    files = {"Dockerfile": text.format(base=stack.base_image)}
    return {"source": {"inline": {"files": files}}}


def layers(stack: devstack.Stack, name: str) -> list[str]:
    """The digests of an image's layers."""
    manifest = json.loads(crane(stack, "manifest", f"{stack.registry}/{name}"))
    return [layer["digest"] for layer in manifest["layers"]]
