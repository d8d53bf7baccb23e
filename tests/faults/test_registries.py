"""Registries that are slow, forget a token or give a name away: the build ends as it should."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import devstack
from bench.processes import appeared
from devstack.builds import Builds, condition
from devstack.images import crane
from devstack.operator import OperatorProcess
from devstack.registries import PASSWORD, USERNAME, Registries
from devstack.server import Command, Server, await_ready, free_port, start
from devstack.tokens import Signer
from devstack.tokenserver import TokenServer, serve_tokens
from tests.support.registry_proxy import RegistryProxy
from tests.support.specs import HELLO
from tests.support.stack import Kubectl
from tests.support.waiting import becomes
from tests.support.workshop import login

pytestmark = pytest.mark.timeout(120)
DEADLINE = 5
LEEWAY_SECONDS = 60
"""For which the registry takes a token that has expired (distribution, registry/auth/token)."""


def inline(text: str | None = None, **more: Any) -> dict[str, Any]:
    """A spec of inline files."""
    files = HELLO if text is None else {"Dockerfile": text}
    return {"source": {"inline": {"files": files}}, **more}


def random_layer(stack: devstack.Stack, kib: int) -> str:
    """A Dockerfile whose one layer cannot be packed any smaller."""
    return f"FROM {stack.base_image}\nRUN head -c {kib}k /dev/urandom > /noise\n"


def started(command: Command, folder: Path) -> Server:
    """The server, once it is ready."""
    return await_ready(command, start(command, folder))


@pytest.fixture
async def proxy(stack: devstack.Stack) -> AsyncIterator[RegistryProxy]:
    """A proxy before the open registry."""
    async with RegistryProxy(stack.registry) as running:
        yield running


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
    ran = datetime.fromisoformat(ended["completionTime"]) - datetime.fromisoformat(
        ended["startTime"]
    )
    assert DEADLINE <= ran.total_seconds() < DEADLINE + 5
    await becomes(
        lambda: operator.metrics()['imagebuild_slots_in_use{pool="default"}'], 0.0, seconds=5
    )


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
    proxy.down = True
    await builds.create("ours", inline(images=[name]))
    await builds.until(
        "ours", lambda seen: condition(seen.body, "Succeeded").get("reason") == "Retrying"
    )
    proxy.down, proxy.thief = False, thief
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
    ports = {"token": free_port(), "tokens": free_port()}
    registries = Registries(tmp_path, ports)
    # The daemon is told that the token lasts for minutes; the registry takes it for 3 seconds.
    signer = Signer(tmp_path, life_seconds=3 - LEEWAY_SECONDS)
    command = registries.one("token", stack.binaries["registry"])
    server = await asyncio.to_thread(started, command, tmp_path)
    tokens = TokenServer(signer, {USERNAME: PASSWORD})
    try:
        async with (
            serve_tokens(tokens, ports["tokens"]),
            RegistryProxy(registries["token"]) as proxy,
        ):
            proxy.bytes_a_second = 200_000
            await asyncio.to_thread(login, kubectl, proxy.host)
            name = f"{proxy.host}/{builds.namespace}/expires:1"
            auth = [{"secretRef": {"name": "registry"}}]
            text = random_layer(stack, 300)
            await builds.create("expires", inline(text, images=[name], registryAuth=auth))
            ended = (await builds.ended("expires")).status
            assert ended["phase"] == "Succeeded", ended
            assert ended["attempt"] == 1
            asked = [one for one in tokens.seen if any("push" in scope for scope in one.scopes)]
            assert len(asked) >= 2
            assert {one.user for one in asked} == {USERNAME}
    finally:
        await asyncio.to_thread(server.stop)
