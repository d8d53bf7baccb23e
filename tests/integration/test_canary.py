"""Random secrets through every path, and then everything that anybody can see is searched."""

import asyncio
import secrets
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import devstack
from devstack.builds import Builds
from devstack.gitserver import make_repository
from devstack.operator import OperatorProcess
from devstack.registries import PASSWORD
from tests.support.private_git import basic_header, new_key, serve_git_over_http
from tests.support.stack import Kubectl
from tests.support.workshop import login, secret

pytestmark = pytest.mark.timeout(120)


class Watcher:
    """The arguments of every process, looked at again and again while builds run."""

    def __init__(self, canaries: list[str]) -> None:
        self._canaries = [canary.encode() for canary in canaries]
        self.hits: set[str] = set()
        self.looks = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(0.01)

    def _look(self) -> None:
        self.looks += 1
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = process.read_bytes()
            except OSError:
                continue
            if any(canary in line for canary in self._canaries):
                self.hits.add(line.replace(b"\0", b" ").decode(errors="replace"))


@pytest.mark.row("S15")
@pytest.mark.row("A4")
@pytest.mark.row("S14")
async def test_no_secret_is_seen_anywhere(
    stack: devstack.Stack,
    builds: Builds,
    kubectl: Kubectl,
    workshop: OperatorProcess,
    tmp_path: Path,
) -> None:
    token, mounted = secrets.token_hex(32), secrets.token_hex(32)
    pem, _ = await asyncio.to_thread(new_key)
    key = pem.decode().splitlines()[2]
    canaries = [token, mounted, key, PASSWORD]
    host = stack.registries.hosts["token"]
    basic = stack.registries.hosts["htpasswd"]
    await asyncio.to_thread(login, kubectl, host)
    await asyncio.to_thread(login, kubectl, basic, name="basic")
    await asyncio.to_thread(secret, kubectl, "git", {"username": "me", "password": token})
    await asyncio.to_thread(secret, kubectl, "npm", {"token": mounted})
    await asyncio.to_thread(secret, kubectl, "deploy", {"ssh-privatekey": pem.decode()})
    await asyncio.to_thread(make_repository, tmp_path / "app", {"Dockerfile": "FROM scratch\n"})
    watcher = Watcher(canaries)
    watching = asyncio.create_task(watcher.run())
    async with serve_git_over_http(tmp_path, basic_header("me", token)) as git:
        for name, spec in specs(stack, f"{git.url}/app", builds.namespace).items():
            await builds.create(name, spec)
        ended = {
            name: (await builds.ended(name)).status for name in specs(stack, "", builds.namespace)
        }
    watching.cancel()
    told = {name: (one["phase"], one.get("failure")) for name, one in ended.items()}
    assert {name for name, one in ended.items() if one["phase"] == "Succeeded"} == {
        "steps",
        "private-git",
        "classic",
    }, told
    assert "***" in ended["echoes"]["logTail"], told
    assert watcher.looks > 10
    assert watcher.hits == set()
    seen = list(everything(stack, workshop, kubectl, builds.namespace))
    assert len(seen) > 10
    hits = {place for place, text in seen for canary in canaries if canary in text}
    assert hits == set()


def specs(stack: devstack.Stack, git: str, namespace: str) -> dict[str, dict[str, Any]]:
    """A build for each way that a secret can take, and two that fail with it at hand."""
    host = stack.registries.hosts["token"]
    basic = stack.registries.hosts["htpasswd"]
    mount = [{"id": "npm", "secretRef": {"name": "npm", "key": "token"}}]
    ssh = [{"id": "default", "secretRef": {"name": "deploy", "key": "ssh-privatekey"}}]
    auth = [{"secretRef": {"name": "registry"}}, {"secretRef": {"name": "basic"}}]
    uses = (
        f"FROM {stack.base_image}\n"
        "RUN --mount=type=secret,id=npm,required=true --mount=type=ssh,required=true "
        "test -s /run/secrets/npm && test -S $SSH_AUTH_SOCK\n"
    )
    echoes = (
        f"FROM {stack.base_image}\n"
        "RUN --mount=type=secret,id=npm,required=true cat /run/secrets/npm && echo && exit 3\n"
    )
    files = {"source": {"inline": {"files": {"Dockerfile": uses}}}, "secrets": mount, "ssh": ssh}
    return {
        "steps": {
            **files,
            "registryAuth": auth,
            "images": [f"{host}/{namespace}/steps:1"],
            "attestations": {"provenance": "max"},
        },
        "echoes": {
            "source": {"inline": {"files": {"Dockerfile": echoes}}},
            "secrets": mount,
        },
        "private-git": {
            "source": {"git": {"url": git, "revision": "main", "secretRef": {"name": "git"}}},
            "registryAuth": auth,
            "images": [f"{host}/{namespace}/git:1"],
        },
        "not-there": {
            "source": {"git": {"url": git, "revision": "nope", "secretRef": {"name": "git"}}},
        },
        "classic": {
            "source": {"inline": {"files": {"Dockerfile": f"FROM {stack.base_image}\n"}}},
            "builder": "classic",
            "registryAuth": auth,
            "images": [f"{basic}/{namespace}/classic:1"],
        },
    }


def everything(
    stack: devstack.Stack, workshop: OperatorProcess, kubectl: Kubectl, namespace: str
) -> Iterator[tuple[str, str]]:
    """All that can be seen of the builds: where, and what."""
    yield "objects", kubectl("get", "imagebuilds,events", "-o", "json")
    yield "described", kubectl("describe", "imagebuilds")
    yield "operator's log", workshop.log.read_text()
    with urllib.request.urlopen(f"{workshop.ops}/metrics") as answer:  # noqa: S310  # loopback
        yield "metrics", answer.read().decode()
    yield "audit log", stack.audit_log.read_text()
    folders = [workshop.log.parent, *Path("/tmp").glob("imagewright*")]  # noqa: S108  # looked at
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield str(path), path.read_text(errors="replace")
    for log in stack.folder.glob("*.log"):
        # The engine's and the daemon's own logs are their owners', and are searched all the same.
        yield str(log), log.read_text(errors="replace")
    for blob in stack.folder.glob("registry*/docker/registry/v2/blobs/**/data"):
        if namespace in str(blob) or blob.stat().st_size < 1 << 20:
            yield str(blob), blob.read_text(errors="replace")
