"""Registries that fail, are slow, forget a token or lose a name: the build ends as it should."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import devstack
from bench.processes import appeared
from devstack.builds import Builds, Seen, condition
from devstack.images import crane, digest_of, files_of
from devstack.operator import OperatorProcess
from devstack.registries import PASSWORD, USERNAME
from tests.support.private_registry import private_registry
from tests.support.registry_proxy import RegistryProxy, manifests, nothing
from tests.support.specs import HELLO
from tests.support.stack import Kubectl
from tests.support.waiting import becomes
from tests.support.workshop import login

pytestmark = pytest.mark.timeout(120)
DEADLINE = 5
_numbers = itertools.count(1)
LEEWAY_SECONDS = 60
"""For which the registry takes a token that has expired (distribution, registry/auth/token)."""


def inline(text: str | None = None, **more: Any) -> dict[str, Any]:
    """A spec of inline files."""
    files = HELLO if text is None else {"Dockerfile": text}
    return {"source": {"inline": {"files": files}}, **more}


def random_layer(stack: devstack.Stack, kib: int) -> str:
    """A Dockerfile whose one layer cannot be packed any smaller, and is like no other."""
    step = f"RUN : {next(_numbers)}; head -c {kib}k /dev/urandom > /noise"
    return f"FROM {stack.base_image}\n{step}\n"


def retrying(seen: Seen) -> bool:
    """Whether the event says that an attempt broke, and that another will follow."""
    return bool(condition(seen.body, "Succeeded").get("reason") == "Retrying")


def ran_for(ended: dict[str, Any]) -> float:
    """The seconds between the start and the end that the status tells."""
    began, over = (datetime.fromisoformat(ended[one]) for one in ("startTime", "completionTime"))
    return (over - began).total_seconds()


async def free(operator: OperatorProcess) -> None:
    """Until all slots are: one that retries in a daemon comes back when that is done."""
    slots = 'imagebuild_slots_in_use{pool="default"}'
    await becomes(lambda: operator.metrics()[slots], 0.0, seconds=10)


@pytest.fixture
async def proxy(stack: devstack.Stack) -> AsyncIterator[RegistryProxy]:
    """A proxy before the open registry."""
    async with RegistryProxy(stack.registry) as running:
        yield running


def overrun(proxy: RegistryProxy) -> None:
    """Everything is refused with 429, at which a daemon gives up after a few milliseconds."""
    proxy.refuse = lambda _: 429


def down(proxy: RegistryProxy) -> None:
    """Everything is refused with 503, at which a daemon tries again for seven seconds."""
    proxy.refuse = lambda _: 503


def reset(proxy: RegistryProxy) -> None:
    """No upload gets further than half of its bytes."""
    proxy.resetting = True


def flap(proxy: RegistryProxy) -> None:
    """Three requests are refused, the next five are not, and so on."""
    answers = itertools.cycle([503, 503, 503, 0, 0, 0, 0, 0])
    proxy.refuse, proxy.resetting = lambda _: next(answers), False


Ail = Callable[[RegistryProxy], None]
AILS = pytest.mark.parametrize("ail", [overrun, down, reset])


@pytest.mark.row("F32")
@AILS
@pytest.mark.usefixtures("operator")
async def test_a_registry_that_comes_back_flapping_gets_the_image_whole(
    stack: devstack.Stack, builds: Builds, proxy: RegistryProxy, ail: Ail
) -> None:
    ail(proxy)
    name = f"{proxy.host}/{builds.namespace}/flaps:1"
    await builds.create("flaps", inline(random_layer(stack, 300), images=[name]))
    await builds.until("flaps", retrying)
    troubles = proxy.refused + proxy.resets
    flap(proxy)
    ended = (await builds.ended("flaps")).status
    proxy.refuse = nothing
    assert ended["phase"] == "Succeeded", ended
    assert ended["attempt"] > 1
    assert 0 < troubles < proxy.refused + proxy.resets
    assert await asyncio.to_thread(digest_of, stack, name) == ended["imageDigest"]
    assert len((await asyncio.to_thread(files_of, stack, name))["noise"]) == 300 << 10


@pytest.mark.row("F32")
@pytest.mark.usefixtures("operator")
async def test_a_registry_that_fails_for_a_second_costs_no_attempt(
    stack: devstack.Stack, builds: Builds, proxy: RegistryProxy
) -> None:
    answers = itertools.chain([503, 503, 503], itertools.repeat(0))
    proxy.refuse = lambda _: next(answers)
    name = f"{proxy.host}/{builds.namespace}/blinks:1"
    await builds.create("blinks", inline(images=[name]))
    ended = (await builds.ended("blinks")).status
    assert ended["phase"] == "Succeeded", ended
    assert (ended["attempt"], proxy.refused) == (1, 3)
    assert await asyncio.to_thread(digest_of, stack, name) == ended["imageDigest"]


@pytest.mark.row("F32")
@AILS
async def test_a_registry_that_is_never_well_is_named_within_the_deadline(
    stack: devstack.Stack,
    operator: OperatorProcess,
    builds: Builds,
    proxy: RegistryProxy,
    ail: Ail,
) -> None:
    ail(proxy)
    name, deadline = f"{proxy.host}/{builds.namespace}/never:1", 30
    spec = inline(random_layer(stack, 300), images=[name], backoffLimit=1)
    await builds.create("never", {**spec, "activeDeadlineSeconds": deadline})
    ended = (await builds.ended("never")).status
    assert ended["failure"]["reason"] == "RegistryUnavailable", ended
    assert ended["failure"]["retryable"] is True, ended
    assert ended["attempt"] == 2
    assert ran_for(ended) < deadline + 5
    await free(operator)


@pytest.mark.row("F32")
async def test_a_daemon_that_tries_a_registry_again_does_so_no_longer_than_the_deadline(
    operator: OperatorProcess, builds: Builds, proxy: RegistryProxy
) -> None:
    down(proxy)
    name = f"{proxy.host}/{builds.namespace}/late:1"
    await builds.create("late", inline(images=[name], activeDeadlineSeconds=DEADLINE))
    ended = (await builds.ended("late")).status
    assert ended["failure"]["reason"] == "DeadlineExceeded", ended
    assert DEADLINE <= ran_for(ended) < DEADLINE + 5
    await free(operator)


@pytest.mark.row("F33")
async def test_a_registry_that_takes_a_kilobyte_a_second_holds_no_build_beyond_its_deadline(
    stack: devstack.Stack, operator: OperatorProcess, builds: Builds, proxy: RegistryProxy
) -> None:
    proxy.bytes_a_second = 1000
    name = f"{proxy.host}/{builds.namespace}/slow:1"
    spec = inline(random_layer(stack, 300), images=[name], activeDeadlineSeconds=DEADLINE)
    await builds.create("slow", spec)
    ended = (await builds.ended("slow")).status
    assert ended["failure"]["reason"] == "DeadlineExceeded", ended
    assert 0 < proxy.taken < 300_000
    assert DEADLINE <= ran_for(ended) < DEADLINE + 5
    await free(operator)


async def another_image(stack: devstack.Stack, builds: Builds) -> tuple[bytes, str]:
    """The manifest of an image in the repository `tags` of the test, and its type."""
    name = f"{stack.registry}/{builds.namespace}/tags:other"
    await builds.create("other", inline("FROM scratch\nLABEL of=somebody\n", images=[name]))
    assert (await builds.ended("other")).status["phase"] == "Succeeded"
    manifest = await asyncio.to_thread(crane, stack, "manifest", name)
    return manifest.encode(), "application/vnd.oci.image.manifest.v1+json"


@pytest.mark.row("F34")
@pytest.mark.usefixtures("operator")
async def test_a_name_that_a_later_push_took_is_told_with_our_own_digest(
    stack: devstack.Stack, builds: Builds, proxy: RegistryProxy
) -> None:
    thief = await another_image(stack, builds)
    name = f"{proxy.host}/{builds.namespace}/tags:1"
    proxy.refuse = manifests
    await builds.create("ours", inline(images=[name]))
    await builds.until("ours", retrying)
    proxy.refuse, proxy.thief = nothing, thief
    ended = (await builds.ended("ours")).status
    assert ended["phase"] == "Succeeded", ended
    [image] = ended["images"]
    assert image["state"] == "TagOverwritten"
    assert f"Another push has taken {name} since" in ended["conditions"][0]["message"]
    there = await asyncio.to_thread(crane, stack, "digest", name)
    assert there == "sha256:" + hashlib.sha256(thief[0]).hexdigest()
    assert there != image["digest"] == ended["imageDigest"]
    ours = await asyncio.to_thread(crane, stack, "digest", image["reference"])
    assert ours == image["digest"]


@pytest.mark.row("F34")
@pytest.mark.usefixtures("operator")
async def test_of_two_builds_with_one_name_the_one_that_lost_it_says_so(
    stack: devstack.Stack, builds: Builds, proxy: RegistryProxy
) -> None:
    name = f"{proxy.host}/{builds.namespace}/tags:1"
    await builds.create("alone", inline(images=[name]))
    assert (await builds.ended("alone")).status["images"][0]["state"] == "Pushed"
    # Without a rival there is not one request after the push.
    assert proxy.seen[-1] == f"PUT /v2/{builds.namespace}/tags/manifests/1"
    sleeps = inline(f"FROM {stack.base_image}\nRUN sleep 900031\n", images=[name])
    await builds.create("rival", sleeps)
    await appeared("900031")
    proxy.thief = await another_image(stack, builds)
    await builds.create("lost", inline("FROM scratch\nLABEL of=lost\n", images=[name]))
    ended = (await builds.ended("lost")).status
    assert ended["images"][0]["state"] == "TagOverwritten", ended
    await builds.delete("rival")
    await builds.gone("rival")


@pytest.mark.row("F31")
async def test_a_token_that_expires_in_mid_push_is_asked_for_again(
    stack: devstack.Stack,
    operator: OperatorProcess,
    builds: Builds,
    kubectl: Kubectl,
    tmp_path: Path,
) -> None:
    # The daemon is told that the token lasts for minutes; the registry takes it for 3 seconds.
    life, passwords = 3 - LEEWAY_SECONDS, {USERNAME: PASSWORD}
    async with private_registry(stack, tmp_path, passwords, life) as private:
        private.proxy.bytes_a_second = 200_000
        await asyncio.to_thread(login, kubectl, private.proxy.host)
        name = f"{private.proxy.host}/{builds.namespace}/expires:1"
        auth = [{"secretRef": {"name": "registry"}}]
        text = random_layer(stack, 300)
        await builds.create("expires", inline(text, images=[name], registryAuth=auth))
        ended = (await builds.ended("expires")).status
        assert ended["phase"] == "Succeeded", ended
        assert ended["attempt"] == 1
        pushers = private.pushers()
        assert len(pushers) >= 2
        assert set(pushers) == {USERNAME}
