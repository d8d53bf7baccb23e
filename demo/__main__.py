"""python -m demo: real builds on real servers, each compared with what the servers themselves say.

Exit status 0 only if everything that is shown was true.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import yaml

import devstack
from bench.processes import appeared, vanished
from demo.backend import show_backend
from demo.cluster import NAMESPACE, kubectl, make_namespace
from demo.page import Page
from demo.queue import show_queue
from devstack.builds import Builds, condition
from devstack.gitserver import make_repository, serve_git
from devstack.images import digest_of, files_of
from devstack.operator import start_operator

EXAMPLE = Path(__file__).parent.parent / "examples" / "hello.yaml"


def main() -> int:
    """Bring the stack up, start the operator, show it; then stop the operator."""
    page = Page()
    page.title("The servers: etcd, kube-apiserver, a registry, buildkitd, on loopback")
    began = time.monotonic()
    stack = devstack.up("demo", page.say)
    page.say(f"up after {time.monotonic() - began:.1f} s, in {stack.folder}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(show(stack, Path(folder), page))
            asyncio.run(show_backend(stack, Path(folder), page))
            asyncio.run(show_queue(stack, Path(folder), page))
    finally:
        devstack.down("demo")
    return page.close()


async def show(stack: devstack.Stack, folder: Path, page: Page) -> None:
    """All scenes, on one operator."""
    operator = await asyncio.to_thread(
        start_operator,
        folder / "operator",
        stack.operator_kubeconfig,
        pools=[{"workers": [stack.buildkit], "slots": 1}],
    )
    page.say(f"the operator runs as pid {operator.pid}, under the role that the chart ships")
    try:
        make_namespace(stack)
        async with Builds(str(stack.kubeconfig), NAMESPACE) as builds:
            await first_build(stack, builds, page)
            await two_names(stack, builds, page)
            await from_git(stack, builds, page, folder)
            await failing_step(stack, builds, page)
            await deleted(stack, builds, page)
    finally:
        await asyncio.to_thread(operator.stop)


async def first_build(stack: devstack.Stack, builds: Builds, page: Page) -> None:
    """A build, from the example file to the registry."""
    page.title("(a) kubectl apply -f examples/hello.yaml")
    body = yaml.safe_load(EXAMPLE.read_text())
    image = f"{stack.registry}/hello:latest"
    body["spec"]["images"] = [image]
    # The pool has one slot, and another build holds it: so hello has something to wait for.
    busy = f"FROM {stack.base_image}\nRUN sleep 1\n"
    await builds.create("ahead", {"source": {"inline": {"files": {"Dockerfile": busy}}}})
    await builds.phase("ahead", "Running")
    kubectl(stack, "apply", "--filename=-", text=yaml.safe_dump(body))
    ended = await builds.ended("hello")
    running = await builds.phase("hello", "Running")
    pending = await builds.phase("hello", "Pending")
    page.say(f"Pending: {condition(pending.body, 'Succeeded')['message']}")
    page.say(f"from Running to {ended.status['phase']}: {(ended.at - running.at) * 1000:.0f} ms")
    seen = builds.phases("hello")
    page.check(f"phases: {' → '.join(seen)}", seen == ["Pending", "Running", "Succeeded"])
    page.same(
        "status.imageDigest",
        ended.status.get("imageDigest"),
        "crane digest",
        digest_of(stack, image),
    )
    for name, content in files_of(stack, image).items():
        page.say(f"the image's /{name} says: {content.decode().strip()}")
    page.say(kubectl(stack, "get", "ib"))
    waited = kubectl(stack, "wait", "--for=condition=Complete", "ib/hello", "--timeout=10s")
    page.check("kubectl wait --for=condition=Complete returns", "condition met" in waited)


async def two_names(stack: devstack.Stack, builds: Builds, page: Page) -> None:
    """One build, two names."""
    page.title("(b) two names in one build")
    names = [f"{stack.registry}/app:1.2", f"{stack.registry}/app:latest"]
    files = {"Dockerfile": "FROM scratch\nCOPY app /\n", "app": "the app\n"}
    await builds.create("two", {"source": {"inline": {"files": files}}, "images": names})
    ended = await builds.ended("two")
    for image, name in zip(ended.status.get("images", []), names, strict=False):
        asked = digest_of(stack, name)
        page.same(f"status of {image['tag']}", image["digest"], f"crane digest {name}", asked)
    page.check("both names were pushed", len(ended.status.get("images", [])) == len(names))


async def from_git(stack: devstack.Stack, builds: Builds, page: Page, folder: Path) -> None:
    """A build of a repository made on the spot."""
    page.title("(c) a git build, at the commit that main stands for")
    files = {"Dockerfile": "FROM scratch\nCOPY README /\n", "README": "made on the spot\n"}
    commit = make_repository(folder / "repositories" / "app", files)
    with serve_git(folder / "repositories") as url:
        source = {"git": {"url": f"{url}/app", "revision": "main"}}
        await builds.create("git", {"source": source, "images": [f"{stack.registry}/git:1"]})
        ended = await builds.ended("git")
    found = ended.status.get("source", {}).get("revision")
    page.same("status.source.revision", found, "git rev-parse HEAD", commit)
    page.check("it succeeded", ended.status["phase"] == "Succeeded")


async def failing_step(stack: devstack.Stack, builds: Builds, page: Page) -> None:
    """A step that fails, and all that is said of it at once."""
    page.title("(d) a RUN that prints to stderr and exits 7")
    text = f"FROM {stack.base_image}\nRUN echo all is well\nRUN echo 'no such luck' >&2; exit 7\n"
    await builds.create("fails", {"source": {"inline": {"files": {"Dockerfile": text}}}})
    failed = await builds.phase("fails", "Failed")
    failure = failed.status["failure"]
    for field in ("reason", "step", "line", "exitCode", "message"):
        page.say(f"failure.{field}: {failure.get(field)}")
    page.say(f"logTail: {failed.status.get('logTail', '').strip()}")
    page.check("reason BuildFailed", failure["reason"] == "BuildFailed")
    page.check("line 3 of the Dockerfile", failure.get("line") == 3)
    page.check("exit code 7", failure.get("exitCode") == 7)
    page.check("its stderr is in logTail", "no such luck" in failed.status.get("logTail", ""))
    told = condition(failed.body, "Succeeded").get("reason") == "BuildFailed"
    page.check("all of it in the same write that says Failed", told)


async def deleted(stack: devstack.Stack, builds: Builds, page: Page) -> None:
    """A running build is deleted: how soon its process is gone."""
    page.title("(e) a RUN sleep that is deleted")
    seconds = "86399"
    text = f"FROM {stack.base_image}\nRUN sleep {seconds}\n"
    await builds.create("sleeps", {"source": {"inline": {"files": {"Dockerfile": text}}}})
    pid = await appeared(seconds)
    page.say(f"sleep {seconds} runs as pid {pid}")
    began = time.monotonic()
    delete = asyncio.create_task(builds.delete("sleeps"))
    ended = await vanished(pid)
    await delete
    await builds.gone("sleeps")
    page.say(f"the process was gone {(ended - began) * 1000:.0f} ms after the DELETE was sent")
    page.check("the object is gone too", builds.history["sleeps"][-1].type == "DELETED")


if __name__ == "__main__":
    sys.exit(main())
