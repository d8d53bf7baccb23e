"""A Secret changes in mid build: the attempt that runs keeps the old one, the next has the new."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import devstack
from bench.processes import alive, appeared
from devstack.builds import Builds, condition
from devstack.registries import PASSWORD, USERNAME
from tests.support.private_registry import PrivateRegistry, private_registry
from tests.support.registry_proxy import manifests, nothing
from tests.support.specs import inline, numbers
from tests.support.stack import Kubectl
from tests.support.workshop import login, login_of

pytestmark = [pytest.mark.usefixtures("workshop"), pytest.mark.timeout(120)]
DEPUTY = ("deputy", "another-password")
_seconds = numbers(910)
Change = Callable[[Kubectl, str], object]


def rotate(kubectl: Kubectl, host: str) -> None:
    """The Secret is somebody else's login from now on."""
    login_of(kubectl, host, DEPUTY)


def remove(kubectl: Kubectl, _: str) -> None:
    """The Secret is there no more."""
    kubectl("delete", "secret", "registry")


BUILDERS = pytest.mark.parametrize(
    "how",
    [
        # An engine's own BuildKit takes no annotations: the daemon builds.
        {"builder": "buildkit", "annotations": {"of": "a test"}},
        {"builder": "classic"},
    ],
    ids=["a daemon", "an engine"],
)


@dataclass(frozen=True, slots=True)
class Story:
    """A build that pushes to a registry which lets in the old login and the new one."""

    stack: devstack.Stack
    builds: Builds
    kubectl: Kubectl
    private: PrivateRegistry

    @property
    def name(self) -> str:
        """Of the image."""
        return f"{self.private.proxy.host}/{self.builds.namespace}/changes:1"

    async def until_changed(self, change: Change, how: Mapping[str, Any]) -> None:
        """Begin it, and change the Secret while its step runs, which ends only then."""
        await asyncio.to_thread(login, self.kubectl, self.private.proxy.host)
        seconds = str(next(_seconds))
        text = f"FROM {self.stack.base_image}\nRUN sleep {seconds} || true\n"
        auth = [{"secretRef": {"name": "registry"}}]
        spec = inline({"Dockerfile": text}, images=[self.name], registryAuth=auth, **how)
        await self.builds.create("changes", spec)
        pid = await appeared(seconds)
        await asyncio.to_thread(change, self.kubectl, self.private.proxy.host)
        assert alive(pid)
        os.kill(pid, signal.SIGKILL)

    async def reason(self, reason: str) -> None:
        """Until the status says so."""
        await self.builds.until(
            "changes", lambda seen: condition(seen.body, "Succeeded").get("reason") == reason
        )

    async def succeeded(self) -> int:
        """The attempt in which it did; its digest is the registry's."""
        ended = (await self.builds.ended("changes")).status
        assert ended["phase"] == "Succeeded", ended
        digest = await asyncio.to_thread(self.private.digest, self.name)
        assert digest == ended["images"][0]["digest"]
        return int(ended["attempt"])


@pytest.fixture
async def story(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl, tmp_path: Path
) -> AsyncIterator[Story]:
    """Such a build, not created yet."""
    passwords = dict([(USERNAME, PASSWORD), DEPUTY])
    async with private_registry(stack, tmp_path, passwords) as private:
        yield Story(stack, builds, kubectl, private)


@pytest.mark.row("F41")
@pytest.mark.parametrize("change", [rotate, remove])
@BUILDERS
async def test_a_build_that_runs_pushes_with_the_secret_that_it_began_with(
    story: Story, change: Change, how: Mapping[str, Any]
) -> None:
    await story.until_changed(change, how)
    assert await story.succeeded() == 1
    assert story.private.pushers_in_turn() == [USERNAME]


@pytest.mark.row("F41")
@BUILDERS
async def test_the_attempt_after_a_rotation_pushes_with_the_new_secret(
    story: Story, how: Mapping[str, Any]
) -> None:
    story.private.proxy.refuse = manifests
    await story.until_changed(rotate, how)
    await story.reason("Retrying")
    assert story.private.pushers_in_turn()[0] == USERNAME
    story.private.proxy.refuse = nothing
    assert await story.succeeded() > 1
    assert story.private.pushers_in_turn() == [USERNAME, DEPUTY[0]]


@pytest.mark.row("F41")
@BUILDERS
async def test_the_attempt_after_a_deletion_waits_for_the_secret(
    story: Story, how: Mapping[str, Any]
) -> None:
    story.private.proxy.refuse = manifests
    await story.until_changed(remove, how)
    await story.reason("SecretNotFound")
    assert story.private.pushers_in_turn() == [USERNAME]
    story.private.proxy.refuse = nothing
    await asyncio.to_thread(rotate, story.kubectl, story.private.proxy.host)
    assert await story.succeeded() == 2
    assert story.private.pushers_in_turn() == [USERNAME, DEPUTY[0]]
