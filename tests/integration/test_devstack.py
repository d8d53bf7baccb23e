"""The stack itself: what it promises to the tests that stand on it."""

import subprocess
import sys

import pytest

import devstack
from tests.support.stack import Kubectl

ACCOUNT = "system:serviceaccount:imagewright-system:imagewright"


def test_up_finds_the_stack_that_runs(stack: devstack.Stack) -> None:
    again = devstack.up("test", lambda _: None)
    assert again.servers == stack.servers
    assert all(server.alive for server in again.servers.values())


@pytest.mark.parametrize(
    ("verb", "what", "allowed"),
    [
        ("watch", "imagebuilds.imagewright.dev", "yes"),
        ("patch", "imagebuilds.imagewright.dev/status", "yes"),
        ("delete", "imagebuilds.imagewright.dev", "yes"),
        ("create", "imagebuilds.imagewright.dev", "no"),
        ("patch", "imagebuilds.imagewright.dev", "no"),
        ("get", "secrets", "no"),
        ("create", "pods", "no"),
        ("create", "deployments.apps", "no"),
    ],
)
def test_the_operator_may_do_what_the_chart_says_and_nothing_else(
    kubectl: Kubectl, verb: str, what: str, allowed: str
) -> None:
    kind, _, part = what.partition("/")
    asked = [verb, kind, *([f"--subresource={part}"] if part else []), f"--as={ACCOUNT}"]
    answer = kubectl.run("auth", "can-i", *asked).stdout.strip()
    assert answer == allowed


def test_a_killed_stack_is_cleaned_by_the_next_up_and_down_leaves_nothing() -> None:
    first = devstack.up("test-killed", lambda _: None)
    for server in first.servers.values():
        server.kill()
    second = devstack.up("test-killed", lambda _: None)
    assert {one.pid for one in first.servers.values()}.isdisjoint(
        one.pid for one in second.servers.values()
    )
    devstack.down("test-killed")
    assert not any(server.alive for server in second.servers.values())
    assert not second.folder.exists()


def test_status_and_env_speak_of_the_named_stack(stack: devstack.Stack) -> None:
    command = [sys.executable, "-m", "devstack"]
    env = subprocess.run(
        [*command, "env", "--name", "test"], capture_output=True, text=True, check=True
    ).stdout
    assert f"export IMAGEWRIGHT_REGISTRY={stack.registry}" in env
    status = subprocess.run(
        [*command, "status", "--name", "nobody"], capture_output=True, text=True, check=False
    )
    assert status.returncode == 1
    assert "is not up" in status.stderr
