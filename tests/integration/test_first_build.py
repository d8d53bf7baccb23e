"""The main job: an object is applied, and an image is in the registry."""

import asyncio
import json
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
import yaml

import devstack
from devstack.builds import Builds, condition
from devstack.gitserver import make_repository, serve_git
from devstack.images import crane, files_of
from devstack.operator import OperatorProcess
from devstack.webserver import Mode, pack, serve
from tests.support.specs import HELLO, inline
from tests.support.stack import REPOSITORY, Kubectl, told_of

pytestmark = pytest.mark.usefixtures("operator")


def requests_for(stack: devstack.Stack, namespace: str, verbs: tuple[str, ...]) -> list[str]:
    """What the operator asked of the API server about builds of this namespace."""
    events = [json.loads(line) for line in stack.audit_log.read_text().splitlines()]
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in events
        if event["verb"] in verbs
        and event["objectRef"].get("resource") == "imagebuilds"
        and event["objectRef"].get("namespace") == namespace
        and event["user"]["username"] == "system:serviceaccount:imagewright-system:imagewright"
    ]


WRITES = ("create", "update", "patch", "delete")


async def writes_for(stack: devstack.Stack, namespace: str, expected: int) -> list[str]:
    """The operator's writes, once there are as many as expected: the log is a little behind."""
    deadline = time.monotonic() + 5
    while True:
        writes = requests_for(stack, namespace, WRITES)
        if len(writes) >= expected or time.monotonic() > deadline:
            return writes
        await asyncio.sleep(0.02)


@pytest.mark.row("seed-4")
@pytest.mark.row("seed-8")
async def test_a_build_ends_with_the_digest_that_the_registry_has(
    stack: devstack.Stack, builds: Builds
) -> None:
    name = f"{stack.registry}/{builds.namespace}/hello"
    await builds.create("hello", inline(HELLO, images=[f"{name}:1"]))
    ended = (await builds.ended("hello")).status
    assert ended["phase"] == "Succeeded"
    assert ended["imageDigest"] == crane(stack, "digest", f"{name}:1")
    config = json.loads(crane(stack, "manifest", f"{name}:1"))["config"]["digest"]
    assert ended["imageID"] == config
    assert ended["observedGeneration"] == 1
    assert ended["images"] == [
        {
            "name": name,
            "tag": "1",
            "digest": ended["imageDigest"],
            "reference": f"{name}@{ended['imageDigest']}",
            "state": "Pushed",
        }
    ]
    assert builds.phases("hello") == ["Running", "Succeeded"]


@pytest.mark.row("seed-9")
@pytest.mark.row("seed-2")
async def test_every_name_is_pushed_once_in_order_and_latest_is_added(
    stack: devstack.Stack, builds: Builds
) -> None:
    name = f"{stack.registry}/{builds.namespace}/names"
    await builds.create("names", inline(HELLO, images=[f"{name}:1.2", name, f"{name}:latest"]))
    ended = (await builds.ended("names")).status
    assert [image["tag"] for image in ended["images"]] == ["1.2", "latest"]
    assert crane(stack, "digest", f"{name}:1.2") == crane(stack, "digest", f"{name}:latest")


async def test_a_build_costs_two_writes_and_leaves_no_mark(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl
) -> None:
    manifest = yaml.safe_dump(
        {
            "apiVersion": "imagewright.dev/v1alpha1",
            "kind": "ImageBuild",
            "metadata": {"name": "two"},
            "spec": inline(HELLO, images=[f"{stack.registry}/{builds.namespace}/two:1"]),
        }
    )
    kubectl("apply", "--filename=-", text=manifest)
    kubectl("wait", "--for=condition=Complete", "ib/two", "--timeout=30s")
    await builds.ended("two")
    writes = await writes_for(stack, builds.namespace, 2)
    assert len(writes) == 2, writes
    assert all(write.endswith("/imagebuilds/two/status") for write in writes)
    before = await builds.get("two")
    kubectl("apply", "--filename=-", text=manifest)
    await builds.create("after", inline(HELLO))
    await builds.ended("after")
    writes = await writes_for(stack, builds.namespace, 4)
    assert len([one for one in writes if "/two/" in one]) == 2
    after = await builds.get("two")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert "finalizers" not in after["metadata"]
    ours = [key for key in after["metadata"]["annotations"] if "kubectl" not in key]
    assert ours == []


@pytest.mark.row("seed-10")
async def test_without_names_it_builds_pushes_nothing_and_says_so(builds: Builds) -> None:
    await builds.create("nothing", inline(HELLO))
    ended = await builds.ended("nothing")
    assert ended.status["phase"] == "Succeeded"
    assert "imageDigest" not in ended.status
    assert "Nothing was pushed" in condition(ended.body, "Succeeded")["message"]


@pytest.mark.row("seed-20")
async def test_git_is_built_at_the_commit_that_the_revision_stands_for(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    commit = make_repository(tmp_path / "app", REPOSITORY, tag="v1")
    with serve_git(tmp_path) as url:
        for number, more in enumerate(
            ({}, {"revision": "main"}, {"revision": "v1"}, {"revision": commit})
        ):
            image = f"{stack.registry}/{builds.namespace}/git:{number}"
            spec = {"source": {"git": {"url": f"{url}/app", **more}}, "contextDir": "app"}
            await builds.create(f"git-{number}", {**spec, "images": [image]})
            ended = (await builds.ended(f"git-{number}")).status
            assert ended["phase"] == "Succeeded", ended
            assert ended["source"]["revision"] == commit
            assert files_of(stack, image)["main.txt"] == b"from git\n"


@pytest.mark.row("seed-20")
async def test_an_archive_and_a_bare_dockerfile_are_built_from_a_url(
    stack: devstack.Stack, builds: Builds
) -> None:
    archive = pack({f"sub/{name}": text for name, text in HELLO.items()})
    served = serve(
        {"/a.tar.gz": archive, "/Dockerfile": b"FROM scratch\nCOPY . /all\n"}, "/a.tar.gz"
    )
    try:
        image = f"{stack.registry}/{builds.namespace}/http:1"
        source = {"http": {"url": served.url, "sha256": served.sha256}}
        await builds.create("tar", {"source": source, "contextDir": "sub", "images": [image]})
        ended = (await builds.ended("tar")).status
        assert ended["phase"] == "Succeeded", ended
        assert ended["source"]["revision"] == f"sha256:{served.sha256}"
        assert files_of(stack, image)["hello.txt"] == b"hello\n"
        bare = {"http": {"url": served.url.replace("a.tar.gz", "Dockerfile")}}
        await builds.create("bare", {"source": bare})
        assert (await builds.ended("bare")).status["phase"] == "Succeeded"
        own = "FROM scratch\nCOPY sub/hello.txt /own.txt\n"
        await builds.create("own", {"source": source, "dockerfileInline": own, "images": [image]})
        assert (await builds.ended("own")).status["phase"] == "Succeeded"
        assert files_of(stack, image)["own.txt"] == b"hello\n"
    finally:
        served.stop()


@pytest.mark.row("seed-20")
@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2", "w:"])
async def test_an_archive_is_known_however_it_is_compressed(builds: Builds, mode: Mode) -> None:
    served = serve({"/context": pack(HELLO, mode)}, "/context")
    try:
        await builds.create("packed", {"source": {"http": {"url": served.url}}})
        assert (await builds.ended("packed")).status["phase"] == "Succeeded"
    finally:
        served.stop()


async def test_a_pax_archive_that_is_not_compressed_is_refused_with_advice(builds: Builds) -> None:
    served = serve({"/context": pack(HELLO, "w:", tarfile.PAX_FORMAT)}, "/context")
    try:
        await builds.create("pax", {"source": {"http": {"url": served.url}}})
        failure = (await builds.ended("pax")).status["failure"]
    finally:
        served.stop()
    assert failure["reason"] == "SourceUnavailable"
    assert "GNU format" in failure["message"]


@pytest.mark.row("seed-18")
async def test_options_of_a_build_reach_the_image(stack: devstack.Stack, builds: Builds) -> None:
    dockerfile = (
        f"FROM {stack.base_image} AS one\nARG WHO\nRUN echo $WHO > /who\n"
        "FROM one AS two\nRUN echo two > /two\n"
    )
    image = f"{stack.registry}/{builds.namespace}/options:1"
    spec = inline(
        {"docker/Dockerfile.dev": dockerfile},
        contextDir="docker",
        dockerfile="Dockerfile.dev",
        target="one",
        buildArgs=[{"name": "WHO", "value": "me"}],
        labels={"a.label": "1"},
        annotations={"an.annotation": "2"},
        platforms=["linux/amd64"],
        pull=True,
        network="none",
        images=[image],
    )
    await builds.create("options", spec)
    ended = (await builds.ended("options")).status
    assert ended["phase"] == "Succeeded", ended
    files = files_of(stack, image)
    assert files["who"] == b"me\n"
    assert "two" not in files
    assert json.loads(crane(stack, "config", image))["config"]["Labels"]["a.label"] == "1"
    assert json.loads(crane(stack, "manifest", image))["annotations"]["an.annotation"] == "2"


async def test_no_cache_runs_every_step_again(builds: Builds, stack: devstack.Stack) -> None:
    files = {"Dockerfile": f"FROM {stack.base_image}\nRUN cat /proc/uptime > /when\n"}
    digests = []
    for name, no_cache in (("first", False), ("again", False), ("anew", True)):
        image = f"{stack.registry}/{builds.namespace}/cache:{name}"
        await builds.create(name, inline(files, cache={"noCache": no_cache}, images=[image]))
        ended = (await builds.ended(name)).status
        digests.append(ended["imageDigest"])
        if name == "again":
            assert ended["cache"]["cachedSteps"] >= 1
    assert digests[0] == digests[1] != digests[2]


async def test_two_platforms_make_an_index(stack: devstack.Stack, builds: Builds) -> None:
    image = f"{stack.registry}/{builds.namespace}/multi:1"
    platforms = ["linux/amd64", "linux/arm64"]
    await builds.create("multi", inline(HELLO, images=[image], platforms=platforms))
    ended = (await builds.ended("multi")).status
    assert ended["phase"] == "Succeeded", ended
    index = json.loads(crane(stack, "manifest", image))
    found = [
        f"{one['platform']['os']}/{one['platform']['architecture']}" for one in index["manifests"]
    ]
    assert found == platforms


async def test_inline_files_obey_the_ignore_file(stack: devstack.Stack, builds: Builds) -> None:
    image = f"{stack.registry}/{builds.namespace}/ignore:1"
    files = {
        "Dockerfile": "FROM scratch\nCOPY . /\n",
        ".dockerignore": "*.md\n!keep.md\nDockerfile\n",
        "drop.md": "",
        "keep.md": "kept\n",
        "src/main.c": "int main;\n",
    }
    await builds.create("ignore", inline(files, images=[image]))
    assert (await builds.ended("ignore")).status["phase"] == "Succeeded"
    assert sorted(files_of(stack, image)) == [".dockerignore", "keep.md", "src/main.c"]


async def test_a_failing_step_says_all_in_the_write_that_says_failed(
    stack: devstack.Stack, builds: Builds
) -> None:
    text = f"FROM {stack.base_image}\nRUN echo fine\nRUN echo oh no >&2; exit 7\n"
    await builds.create("fails", inline({"Dockerfile": text}))
    failed = await builds.phase("fails", "Failed")
    status = failed.status
    assert status["failure"]["reason"] == "BuildFailed"
    assert status["failure"]["exitCode"] == 7
    assert status["failure"]["line"] == 3
    assert "exit 7" in status["failure"]["step"]
    assert status["failure"]["retryable"] is False
    assert status["logTail"] == "oh no\n"
    assert condition(failed.body, "Succeeded")["reason"] == "BuildFailed"
    assert condition(failed.body, "Stalled")["status"] == "True"
    assert condition(failed.body, "Reconciling") == {}
    assert builds.phases("fails") == ["Running", "Failed"]


@pytest.mark.row("F15")
async def test_a_step_that_is_killed_is_said_to_be_out_of_memory(
    stack: devstack.Stack, builds: Builds
) -> None:
    text = f"FROM {stack.base_image}\nRUN sh -c 'kill -9 $$'; exit $?\n"
    await builds.create("killed", inline({"Dockerfile": text}))
    ended = (await builds.ended("killed")).status
    assert ended["failure"]["reason"] == "OutOfMemory"
    assert ended["failure"]["exitCode"] == 137
    assert (ended["attempt"], ended["failure"]["retryable"]) == (1, False)


@pytest.mark.row("F70")
async def test_ten_thousand_lines_make_a_small_status_and_few_writes(
    stack: devstack.Stack, builds: Builds
) -> None:
    text = (
        f"FROM {stack.base_image}\nRUN seq 1 10000 && printf '\\033[31mred\\033[0m\\n' && exit 1\n"
    )
    await builds.create("chatty", inline({"Dockerfile": text}))
    ended = await builds.ended("chatty")
    assert len(json.dumps(ended.status)) <= 8192
    assert len(ended.status["logTail"].encode()) <= 4096
    assert ended.status["logTail"].endswith("10000\nred\n")
    assert len(await writes_for(stack, builds.namespace, 2)) == 2


async def test_progress_of_a_long_build_is_written_every_ten_seconds(
    stack: devstack.Stack, builds: Builds
) -> None:
    text = f"FROM {stack.base_image}\nRUN for i in $(seq 1 130); do echo $i; sleep 0.1; done\n"
    await builds.create("long", inline({"Dockerfile": text}, cache={"noCache": True}))
    shown = await builds.until("long", lambda seen: "progress" in seen.status, 20)
    assert "RUN for i" in shown.status["progress"]["step"]
    assert (await builds.ended("long")).status["phase"] == "Succeeded"
    assert len(await writes_for(stack, builds.namespace, 3)) == 3


async def test_what_becomes_of_builds_is_told_in_events(builds: Builds, kubectl: Kubectl) -> None:
    await builds.create("good", inline(HELLO))
    await builds.create("bad", inline({"Dockerfile": "FROM scratch\nCOPY nothing /\n"}))
    await told_of(kubectl, "good", "BuildStarted", "BuildCompleted")
    await told_of(kubectl, "bad", "BuildStarted", "BuildFailed")
    described = kubectl("describe", "imagebuild/bad")
    assert "Warning  BuildFailed" in described
    assert (await builds.get("bad"))["status"]["failure"]["message"] in described


def test_kubectl_explains_every_field_and_shows_the_columns(
    kubectl: Kubectl, operator: OperatorProcess
) -> None:
    explained = kubectl("explain", "imagebuild.spec", "--recursive")
    for field in ("contextDir", "dockerfileInline", "sha256", "rebuildToken", "noCache"):
        assert field in explained
    assert "256 KiB in all" in kubectl("explain", "imagebuild.spec.source.inline.files")
    manifest = {
        "apiVersion": "imagewright.dev/v1alpha1",
        "kind": "ImageBuild",
        "metadata": {"name": "columns"},
        "spec": inline(HELLO),
    }
    kubectl("apply", "--filename=-", text=yaml.safe_dump(manifest))
    kubectl("wait", "--for=condition=Complete", "ib/columns", "--timeout=30s")
    header, row = kubectl("get", "ib", "--output=wide").splitlines()
    assert header.split() == [
        "NAME", "STATUS", "REASON", "IMAGE", "PROGRESS", "QUEUE", "STARTED", "AGE", "DIGEST",
        "WORKER", "ATTEMPT",
    ]  # fmt: skip
    assert row.split()[:3] == ["columns", "Succeeded", "Succeeded"]
    assert operator.process.poll() is None


@pytest.mark.row("seed-8")
async def test_a_builder_that_no_worker_of_the_pool_has_is_refused(builds: Builds) -> None:
    await builds.create("classic", inline(HELLO, builder="classic"))
    ended = await builds.ended("classic")
    assert ended.status["failure"]["reason"] == "FeatureUnsupported"
    assert "it has no classic builder" in ended.status["failure"]["message"]


@pytest.mark.row("B39")
@pytest.mark.parametrize("kind", ["inline", "registry"])
async def test_a_cache_in_a_registry_is_used_after_the_workers_own_is_gone(
    stack: devstack.Stack, builds: Builds, kind: str
) -> None:
    name = f"{stack.registry}/{builds.namespace}/cached:1"
    ref = name if kind == "inline" else f"{stack.registry}/{builds.namespace}/cache"
    text = f"FROM {stack.base_image}\nRUN echo {builds.namespace} > /x\nRUN echo {kind} > /y\n"
    left = {"type": "inline"} if kind == "inline" else {"type": kind, "ref": ref, "mode": "max"}
    spec = inline({"Dockerfile": text}, images=[name])
    await builds.create("leaves", {**spec, "cache": {"to": [left]}})
    assert (await builds.ended("leaves")).status["cache"]["cachedSteps"] < 2
    buildctl = str(stack.binaries["buildctl"])
    command = [buildctl, "--addr", stack.buildkit, "prune", "--all"]
    await asyncio.to_thread(lambda: subprocess.run(command, check=True, capture_output=True))
    await builds.create("uses", {**spec, "cache": {"from": [{"ref": ref}]}})
    assert (await builds.ended("uses")).status["cache"]["cachedSteps"] == 2
