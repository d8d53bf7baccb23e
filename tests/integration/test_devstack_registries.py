"""The stack's private registries: whom they refuse, and that each client gets in by its way."""

import base64
import json
import os
import subprocess
from http import HTTPStatus
from pathlib import Path

import pytest

import devstack
from devstack import PASSWORD, USERNAME
from devstack.registries import PRIVATE
from imagewright.clients.engine.auth import Login
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import StreamError
from tests.support.engines import posted

every_registry = pytest.mark.parametrize("registry", PRIVATE)


def _config(folder: Path, host: str, password: str | None) -> Path:
    """A folder with the config.json that crane and buildctl read."""
    pair = base64.b64encode(f"{USERNAME}:{password}".encode()).decode()
    auths = {host: {"auth": pair}} if password else {}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    return folder


def _copy(stack: devstack.Stack, host: str, config: Path) -> "subprocess.CompletedProcess[str]":
    """crane, copying the base image from the open registry; it trusts the stack's authority."""
    command = [str(stack.binaries["crane"]), "copy", stack.base_image, f"{host}/copied:1"]
    return subprocess.run(
        command,
        env={
            **os.environ,
            "DOCKER_CONFIG": str(config),
            "SSL_CERT_FILE": str(stack.registries.ca),
        },
        capture_output=True,
        text=True,
        check=False,
    )


@every_registry
@pytest.mark.parametrize("password", [None, "wrong"], ids=["nobody", "a wrong password"])
def test_it_refuses(
    stack: devstack.Stack, registry: str, password: str | None, tmp_path: Path
) -> None:
    host = stack.registries[registry]
    ended = _copy(stack, host, _config(tmp_path / "docker", host, password))
    assert ended.returncode != 0
    assert "401" in ended.stderr or "UNAUTHORIZED" in ended.stderr, ended.stderr


@every_registry
def test_it_takes_the_right_password(stack: devstack.Stack, registry: str, tmp_path: Path) -> None:
    host = stack.registries[registry]
    ended = _copy(stack, host, _config(tmp_path / "docker", host, PASSWORD))
    assert ended.returncode == 0, ended.stderr


@every_registry
def test_buildkitd_pushes_there(stack: devstack.Stack, registry: str, tmp_path: Path) -> None:
    host = stack.registries[registry]
    (tmp_path / "Dockerfile").write_text(f"FROM {stack.base_image}\nRUN true\n")
    command = [
        str(stack.binaries["buildctl"]),
        f"--addr={stack.buildkit}",
        "build",
        "--frontend=dockerfile.v0",
        f"--local=context={tmp_path}",
        f"--local=dockerfile={tmp_path}",
        f"--output=type=image,name={host}/built:1,push=true",
    ]
    config = _config(tmp_path / "docker", host, PASSWORD)
    environment = {**os.environ, "DOCKER_CONFIG": str(config)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@every_registry
async def test_engines_push_there(
    stack: devstack.Stack, engine: Engine, kind: str, registry: str
) -> None:
    pulled = await posted(engine, "/images/create", [("fromImage", stack.base_image)])
    assert pulled.status == HTTPStatus.OK
    repository = f"{stack.registries[registry]}/pushed-{kind}"
    await engine.tag(stack.base_image, repository, "1")
    pushed = await engine.push(repository, "1", Login(USERNAME, PASSWORD))
    assert pushed.startswith("sha256:")
    with pytest.raises(StreamError):
        await engine.push(repository, "1", Login(USERNAME, "wrong"))


def test_the_token_server_writes_which_way_it_was_asked(
    stack: devstack.Stack, tmp_path: Path
) -> None:
    host, before = stack.registries["token"], len(_asked(stack))
    _copy(stack, host, _config(tmp_path / "docker", host, PASSWORD)).check_returncode()
    asked = _asked(stack)[before:]
    assert {"method": "GET", "known": True} in [
        {"method": one["method"], "known": one["known"]} for one in asked
    ]
    assert any("repository:copied:push,pull" in str(one["scopes"]) for one in asked), asked
    assert PASSWORD not in stack.registries.token_log.read_text()


def _asked(stack: devstack.Stack) -> list[dict[str, object]]:
    log = stack.registries.token_log
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
