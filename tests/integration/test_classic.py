"""The classic builder, and an engine's BuildKit beside a daemon, through the operator."""

import asyncio
import json
from typing import Any

import pytest

import devstack
from bench.processes import appeared, vanished
from devstack.builds import Builds, condition
from devstack.images import crane, files_of
from imagewright.clients.engine.connection import Request
from imagewright.clients.engine.engine import Engine
from tests.support.specs import numbers
from tests.support.stack import Kubectl
from tests.support.stopping import stops
from tests.support.workshop import secret

pytestmark = [pytest.mark.usefixtures("workshop"), pytest.mark.timeout(120)]
BUILDERS = ["buildkit", "classic"]
_seconds = numbers(701)


def inline(text: str, **more: Any) -> dict[str, Any]:
    """A spec of one Dockerfile."""
    return {"source": {"inline": {"files": {"Dockerfile": text}}}, **more}


async def held(stack: devstack.Stack) -> tuple[set[str], set[str]]:
    """What the engine holds: names of images, and ids of containers."""
    engine = Engine(stack.engine("new", lambda _: None).address)
    try:
        images = await engine.connection.answer(Request("GET", "/images/json", [("all", "1")]))
        running = await engine.connection.answer(
            Request("GET", "/containers/json", [("all", "1")])
        )
    finally:
        await engine.close()
    names = {name for image in images.json() for name in image["RepoTags"] or ()}
    return names, {one["Id"] for one in running.json()}


@pytest.mark.row("C9")
@pytest.mark.row("seed-16")
@pytest.mark.row("F60")
@pytest.mark.parametrize("how", ["delete", "cancel"])
async def test_a_cancelled_classic_build_leaves_no_process_name_or_container(
    stack: devstack.Stack, builds: Builds, how: str
) -> None:
    before = await held(stack)
    seconds = str(next(_seconds))
    name = f"{stack.registry}/{builds.namespace}/gone:1"
    text = f"FROM {stack.base_image}\nRUN sleep {seconds}\n"
    await builds.create("gone", inline(text, builder="classic", images=[name]))
    pid = await appeared(seconds)
    if how == "delete":
        await stops(builds, "gone", vanished(pid))
    else:
        await builds.patch("gone", {"spec": {"cancel": True}})
        await builds.phase("gone", "Cancelled")
        await vanished(pid, seconds=5)
    after = await held(stack)
    assert name not in after[0]
    async with asyncio.timeout(10):
        while (await held(stack))[1] - before[1]:
            await asyncio.sleep(0.05)
    with pytest.raises(Exception, match="exit status 1"):
        crane(stack, "digest", name)


@pytest.mark.row("C6")
async def test_a_cancel_before_the_build_begins_is_remembered(
    builds: Builds, kubectl: Kubectl
) -> None:
    mount = [{"id": "a", "secretRef": {"name": "late", "key": "a"}}]
    await builds.create("early", inline("FROM scratch\n", secrets=mount))
    await builds.phase("early", "Pending")
    await builds.patch("early", {"spec": {"cancel": True}})
    await builds.phase("early", "Cancelled")
    await asyncio.to_thread(secret, kubectl, "late", {"a": "b"})
    await builds.patch("early", {"metadata": {"labels": {"seen": "again"}}})
    await builds.until("early", lambda seen: "labels" in seen.body["metadata"])
    assert builds.phases("early") == ["Pending", "Cancelled"]


@pytest.mark.row("B43")
@pytest.mark.row("seed-3")
async def test_a_classic_step_that_fails_is_told_like_any_other(
    stack: devstack.Stack, builds: Builds
) -> None:
    before = await held(stack)
    text = f"FROM {stack.base_image}\nRUN echo fine\nRUN echo 'no such luck' >&2; exit 7\n"
    await builds.create("fails", inline(text, builder="classic"))
    failed = (await builds.ended("fails")).status
    assert failed["failure"]["reason"] == "BuildFailed"
    assert failed["failure"]["exitCode"] == 7
    assert failed["failure"]["step"].startswith("[3/3] RUN echo 'no such luck'")
    assert "no such luck" in failed["logTail"]
    assert "\x1b" not in failed["logTail"]
    assert (await held(stack))[1] <= before[1]


@pytest.mark.row("B20")
@pytest.mark.row("B19")
async def test_a_second_classic_build_comes_from_the_cache_unless_told_otherwise(
    stack: devstack.Stack, builds: Builds
) -> None:
    text = f"FROM {stack.base_image}\nRUN echo {builds.namespace} > /x\n"
    specs: dict[str, dict[str, Any]] = {
        "first": {},
        "second": {"rebuildToken": "2"},
        "third": {"cache": {"noCache": True}},
    }
    for name, spec in specs.items():
        await builds.create(name, inline(text, builder="classic", **spec))
        await builds.ended(name)
    cached = {name: (await builds.get(name))["status"]["cache"]["cachedSteps"] for name in specs}
    assert cached == {"first": 0, "second": 1, "third": 0}


OPTIONS = """\
FROM {base} AS first
ARG GREETING
LABEL of=the-dockerfile
RUN echo $GREETING > /said
RUN ulimit -n > /files; df -k /dev/shm | tail -1 > /shm; cat /etc/hosts > /hosts
RUN ls /sys/class/net > /net
FROM first AS second
RUN touch /not-wanted
"""


@pytest.mark.row("seed-18")
@pytest.mark.row("B16")
@pytest.mark.row("B17")
@pytest.mark.row("B24")
@pytest.mark.row("B27")
@pytest.mark.row("B29")
@pytest.mark.parametrize("builder", BUILDERS)
async def test_each_option_does_what_it_says(
    stack: devstack.Stack, builds: Builds, builder: str
) -> None:
    name = f"{stack.registry}/{builds.namespace}/options:1"
    spec = inline(
        OPTIONS.format(base=stack.base_image),
        builder=builder,
        images=[name],
        target="first",
        buildArgs=[{"name": "GREETING", "value": "hello there"}],
        labels={"added": "by the spec"},
        network="none",
        extraHosts=[{"hostname": "db.example", "ip": "10.1.2.3"}],
        shmSize="32Mi",
        ulimits=[{"name": "nofile", "soft": 1000, "hard": 2000}],
        platforms=["linux/amd64"],
        pull=True,
    )
    await builds.create("options", spec)
    ended = (await builds.ended("options")).status
    assert ended["phase"] == "Succeeded", ended
    found = await asyncio.to_thread(files_of, stack, name)
    assert found["said"] == b"hello there\n"
    assert found["files"] == b"1000\n"
    assert b"32768" in found["shm"]
    assert b"10.1.2.3\tdb.example" in found["hosts"].replace(b" ", b"\t")
    assert b"eth0" not in found["net"]
    assert "not-wanted" not in found
    labels = json.loads(crane(stack, "config", name))["config"]["Labels"]
    assert (labels["added"], labels["of"]) == ("by the spec", "the-dockerfile")


@pytest.mark.row("B22")
async def test_limits_reach_the_steps_of_a_classic_build(
    stack: devstack.Stack, builds: Builds
) -> None:
    name = f"{stack.registry}/{builds.namespace}/limits:1"
    text = (
        f"FROM {stack.base_image}\n"
        "RUN cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes > /limit"
        " 2>/dev/null; true\n"
    )
    limits = {"memory": "256Mi", "memorySwap": "256Mi"}
    await builds.create("limits", inline(text, builder="classic", images=[name], limits=limits))
    assert (await builds.ended("limits")).status["phase"] == "Succeeded"
    found = await asyncio.to_thread(files_of, stack, name)
    assert found["limit"] == f"{256 << 20}\n".encode()


@pytest.mark.row("B51")
@pytest.mark.parametrize("builder", BUILDERS)
async def test_a_context_dir_a_dockerfile_of_another_name_and_an_ignore_file(
    stack: devstack.Stack, builds: Builds, builder: str
) -> None:
    files = {
        "app/docker/Build": "FROM scratch\nCOPY . /\n",
        "app/kept": "kept\n",
        "app/ignored": "ignored\n",
        "app/.dockerignore": "ignored\n",
        "other": "other\n",
    }
    name = f"{stack.registry}/{builds.namespace}/context:1"
    spec = {
        "source": {"inline": {"files": files}},
        "builder": builder,
        "contextDir": "app",
        "dockerfile": "docker/Build",
        "images": [name],
    }
    await builds.create("context", spec)
    ended = (await builds.ended("context")).status
    assert ended["phase"] == "Succeeded", ended
    found = await asyncio.to_thread(files_of, stack, name)
    assert found["kept"] == b"kept\n"
    assert not {"ignored", "other"} & set(found)


@pytest.mark.parametrize("builder", BUILDERS)
async def test_a_dockerfile_in_the_spec_stands_for_that_of_the_source(
    stack: devstack.Stack, builds: Builds, builder: str
) -> None:
    name = f"{stack.registry}/{builds.namespace}/stands:1"
    spec = inline("FROM nowhere.example/nothing\n", builder=builder, images=[name])
    spec["source"]["inline"]["files"]["a"] = "a\n"
    spec["dockerfileInline"] = "FROM scratch\nCOPY . /\n"
    await builds.create("stands", spec)
    ended = (await builds.ended("stands")).status
    assert ended["phase"] == "Succeeded", ended
    found = await asyncio.to_thread(files_of, stack, name)
    assert found["a"] == b"a\n"
    assert not [path for path in found if "imagewright" in path]


@pytest.mark.row("B55")
@pytest.mark.parametrize("builder", BUILDERS)
async def test_two_builds_of_one_name_both_end_and_each_says_what_it_pushed(
    stack: devstack.Stack, builds: Builds, builder: str
) -> None:
    name = f"{stack.registry}/{builds.namespace}/raced:1"
    for which in ("one", "two"):
        text = f"FROM {stack.base_image}\nRUN echo {which} > /{which}\n"
        await builds.create(which, inline(text, builder=builder, images=[name]))
    ended = [(await builds.ended(which)).status for which in ("one", "two")]
    digests = [one["images"][0]["digest"] for one in ended]
    assert len(set(digests)) == 2
    assert crane(stack, "digest", name) in digests


@pytest.mark.row("seed-8")
async def test_squash_goes_to_a_worker_that_can(stack: devstack.Stack, builds: Builds) -> None:
    name = f"{stack.registry}/{builds.namespace}/squashed"
    text = f"FROM {stack.base_image}\nRUN echo 1 > /1\nRUN echo 2 > /2\n"
    for number in range(3):
        spec = inline(text, squash=True, images=[f"{name}:{number}"])
        await builds.create(f"squashed-{number}", spec)
    for number in range(3):
        ended = (await builds.ended(f"squashed-{number}")).status
        assert ended["phase"] == "Succeeded", ended
        assert ended["imageDigest"] == crane(stack, "digest", f"{name}:{number}")


UNSUPPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "secrets of a classic build": (
        {"builder": "classic", "secrets": [{"id": "a", "secretRef": {"name": "a", "key": "b"}}]},
        "spec.secrets",
    ),
    "limits of BuildKit": ({"limits": {"memory": "1Gi"}}, "spec.limits"),
    "a squash without a name": ({"squash": True}, "spec.images"),
}


@pytest.mark.row("seed-18")
@pytest.mark.parametrize(("more", "named"), UNSUPPORTED.values(), ids=UNSUPPORTED)
async def test_what_a_builder_would_ignore_is_refused_by_name(
    builds: Builds, more: dict[str, Any], named: str
) -> None:
    await builds.create("refused", inline("FROM scratch\n", **more))
    ended = await builds.ended("refused")
    assert ended.status["failure"]["reason"] == "FeatureUnsupported"
    assert named in ended.status["failure"]["message"]
    assert condition(ended.body, "Stalled")["status"] == "True"
    assert builds.phases("refused") == ["Failed"]
