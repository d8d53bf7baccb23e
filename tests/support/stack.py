"""Fixtures: a stack for the whole run, an operator for a module, builds in their own namespace."""

import asyncio
import itertools
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

import devstack
from devstack.builds import Builds
from devstack.operator import OperatorProcess, start_operator
from tests.support.waiting import becomes

STACK = "-".join(
    [
        os.environ.get("DEVSTACK_NAME", "test"),
        *filter(None, [os.environ.get("PYTEST_XDIST_WORKER")]),
    ]
)
"""Two runs at once need two stacks, and so do two processes of one run."""
_numbers = itertools.count(1)
_run = secrets.token_hex(3)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[devstack.Stack]:
    """The real servers, started once; their logs are kept where a test failed."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        running = devstack.up(STACK, lambda line: say(f"devstack: {line}"))
    yield running
    failed = request.session.testsfailed > 0
    devstack.down(STACK, keep_logs=failed)
    if failed:
        say(f"The servers' logs are in {running.folder}.")


def say(line: str) -> None:
    """Tell the person at the terminal."""
    sys.stderr.write(f"\n{line}\n")


@pytest.fixture(scope="session")
def buildkit(stack: devstack.Stack) -> str:
    """The address of a real buildkitd."""
    return stack.buildkit


@pytest.fixture(scope="module")
def operator(
    stack: devstack.Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """An operator as a process, under the chart's own role."""
    running = start_operator(
        tmp_path_factory.mktemp("operator"),
        stack.operator_kubeconfig,
        pools=[{"workers": [stack.buildkit], "slots": 2}],
    )
    yield running
    running.stop()


@pytest.fixture
def namespace(stack: devstack.Stack) -> str:
    """A namespace that no other test has."""
    name = f"test-{_run}-{next(_numbers)}"
    command = ["create", "namespace", name]
    subprocess.run(
        [stack.binaries["kubectl"], f"--kubeconfig={stack.kubeconfig}", *command],
        check=True,
        capture_output=True,
    )
    return name


@pytest.fixture
async def builds(stack: devstack.Stack, namespace: str) -> AsyncIterator[Builds]:
    """The ImageBuilds of that namespace, watched; all deleted at the end."""
    async with Builds(str(stack.kubeconfig), namespace) as watched:
        yield watched
        left = [name for name, seen in watched.history.items() if seen[-1].type != "DELETED"]
        await asyncio.gather(*(watched.delete(name) for name in left))


@pytest.fixture
def kubectl(stack: devstack.Stack, namespace: str) -> "Kubectl":
    """kubectl as an admin, in that namespace."""
    return Kubectl(stack, namespace)


class Kubectl:
    """Runs kubectl; a call returns what it printed, and raises where it failed."""

    def __init__(self, stack: devstack.Stack, namespace: str) -> None:
        self._command = [
            str(stack.binaries["kubectl"]),
            f"--kubeconfig={stack.kubeconfig}",
            f"--namespace={namespace}",
        ]

    def __call__(self, *arguments: str, text: str = "") -> str:
        """What it prints. Raises CalledProcessError, with stderr, where it fails."""
        return self.run(*arguments, text=text, check=True).stdout

    def run(
        self, *arguments: str, text: str = "", check: bool = False
    ) -> "subprocess.CompletedProcess[str]":
        """The finished process."""
        return subprocess.run(
            [*self._command, *arguments], input=text, capture_output=True, text=True, check=check
        )


async def told_of(kubectl: Kubectl, name: str, *reasons: str) -> None:
    """Wait until these are the Events about an object, whatever their order in the list."""
    about = f"--field-selector=involvedObject.name={name}"

    def look() -> list[str]:
        return sorted(kubectl("get", "events", about, "--output=custom-columns=:.reason").split())

    await becomes(look, sorted(reasons), 10)


REPOSITORY = {
    "Dockerfile": "FROM scratch\nCOPY app /app\n",
    "app/Dockerfile": "FROM scratch\nCOPY main.txt /\n",
    "app/main.txt": "from git\n",
}
"""A small repository; its folder app is a context of its own."""
