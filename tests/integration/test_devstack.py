"""The stack itself: what it promises to the tests that stand on it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import devstack
from bench.processes import appeared, find
from devstack.images import digest_of, files_of
from devstack.server import Server
from devstack.stack import RUN
from tests.support.stack import STACK, Kubectl

ACCOUNT = "system:serviceaccount:imagewright-system:imagewright"


def test_up_finds_the_stack_that_runs(stack: devstack.Stack) -> None:
    again = devstack.up(STACK, _quiet)
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
        ("get", "secrets", "yes"),
        ("list", "secrets", "no"),
        ("watch", "secrets", "no"),
        ("patch", "secrets", "no"),
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


@pytest.fixture
def second() -> Iterator[devstack.Stack]:
    """A stack of one test, beside the one of all."""
    yield devstack.up("test-second", _quiet)
    devstack.down("test-second")


def _quiet(_: str) -> None:
    """Nobody is told."""


def _build(stack: devstack.Stack, step: str, folder: Path) -> "subprocess.Popen[bytes]":
    """buildctl, building and pushing an image of one step."""
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {stack.base_image}\nRUN {step}\n")
    command = [
        str(stack.binaries["buildctl"]),
        f"--addr={stack.buildkit}",
        "build",
        "--frontend=dockerfile.v0",
        f"--local=context={folder}",
        f"--local=dockerfile={folder}",
        f"--output=type=image,name={stack.registry}/devstack:one,push=true",
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_what_buildctl_pushes_crane_sees(stack: devstack.Stack, tmp_path: Path) -> None:
    assert _build(stack, "echo hello > /made", tmp_path / "context").wait(30) == 0
    image = f"{stack.registry}/devstack:one"
    assert digest_of(stack, image).startswith("sha256:")
    assert files_of(stack, image)["made"] == b"hello\n"


def test_a_request_for_builds_is_a_line_of_the_audit_log(
    stack: devstack.Stack, kubectl: Kubectl, namespace: str
) -> None:
    kubectl("get", "imagebuilds")
    kubectl("get", "configmaps")
    lines = [json.loads(line) for line in stack.audit_log.read_text().splitlines()]
    mine = [line for line in lines if line["objectRef"].get("namespace") == namespace]
    assert [(line["verb"], line["objectRef"]["resource"]) for line in mine] == [
        ("list", "imagebuilds")
    ]


async def test_a_killed_stack_is_cleaned_by_the_next_up(
    second: devstack.Stack, tmp_path: Path
) -> None:
    build = _build(second, "sleep 900001", tmp_path / "context")
    await appeared("900001")
    for server in second.servers.values():
        os.kill(server.pid, signal.SIGKILL)
    build.wait(30)
    fresh = devstack.up("test-second", _quiet)
    assert {one.pid for one in second.servers.values()}.isdisjoint(
        one.pid for one in fresh.servers.values()
    )
    assert all(fresh.answers().values())
    assert find("900001") is None


async def test_down_leaves_nothing_and_no_other_stack_notices(
    stack: devstack.Stack, second: devstack.Stack, tmp_path: Path
) -> None:
    second.servers["buildkitd"].kill()
    second.start_buildkitd()
    build = _build(second, "sleep 900002", tmp_path / "context")
    await appeared("900002")
    devstack.down("test-second")
    build.wait(30)
    assert not any(server.alive for server in second.servers.values())
    assert find("900002") is None
    assert not second.folder.exists()
    assert all(stack.answers().values())


def test_a_server_that_hangs_is_not_called_up(second: devstack.Stack) -> None:
    os.kill(second.servers["buildkitd"].pid, signal.SIGSTOP)
    answers = second.answers()
    assert {name for name, well in answers.items() if not well} == {"buildkitd"}
    assert answers.keys() == second.servers.keys()


def test_two_that_start_one_stack_share_it() -> None:
    command = [sys.executable, "-m", "devstack", "up", "--name", "test-shared"]
    # A proxy that the environment names must not stand between us and loopback either.
    environment = {**os.environ, "https_proxy": "http://127.0.0.1:9"}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        said = [one.communicate(timeout=60)[0] for one in both]
    finally:
        devstack.down("test-shared")
    assert [one.returncode for one in both] == [0, 0]
    assert sum("The stack test-shared is up." in text for text in said) == 1
    assert not (RUN / "test-shared").exists()


def test_up_renews_the_operators_token(stack: devstack.Stack) -> None:
    before = stack.operator_kubeconfig.read_text()
    stack.operator_kubeconfig.write_text(before.replace('"token": "', '"token": "expired'))
    again = devstack.up(STACK, _quiet)
    command = [str(again.binaries["kubectl"]), f"--kubeconfig={again.operator_kubeconfig}"]
    subprocess.run([*command, "get", "imagebuilds", "-A"], check=True, capture_output=True)


def test_a_server_that_was_never_seen_alive_is_not_alive() -> None:
    gone = Server("gone", pid=2**22 + 1, born=0, log="")
    assert not gone.alive
    gone.stop()


def test_status_and_env_speak_of_the_named_stack(stack: devstack.Stack) -> None:
    command = [sys.executable, "-m", "devstack"]
    env = subprocess.run(
        [*command, "env", "--name", STACK], capture_output=True, text=True, check=True
    ).stdout
    assert f"export IMAGEWRIGHT_REGISTRY={stack.registry}" in env
    status = subprocess.run(
        [*command, "status", "--name", "nobody"], capture_output=True, text=True, check=False
    )
    assert status.returncode == 1
    assert "is not up" in status.stderr
