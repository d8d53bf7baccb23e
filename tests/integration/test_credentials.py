"""Secrets, through the operator: waited for, used at real registries, and shown nowhere."""

import asyncio
import hashlib
import json
import secrets
import time
from pathlib import Path
from typing import Any

import pytest

import devstack
from devstack.builds import Builds
from devstack.gitserver import make_repository
from devstack.images import crane, files_of
from devstack.operator import OperatorProcess
from tests.support.private_git import basic_header, new_key, serve_git_over_http
from tests.support.specs import HELLO
from tests.support.stack import REPOSITORY, Kubectl
from tests.support.workshop import digest_with_login, login, secret

pytestmark = [pytest.mark.usefixtures("workshop"), pytest.mark.timeout(120)]
AUTH: dict[str, Any] = {"registryAuth": [{"secretRef": {"name": "registry"}}]}
BUILDERS = ["buildkit", "classic"]


def inline(text: str | None = None, **more: Any) -> dict[str, Any]:
    """A spec of inline files."""
    files = HELLO if text is None else {"Dockerfile": text}
    return {"source": {"inline": {"files": files}}, **more}


@pytest.mark.row("F40")
@pytest.mark.row("seed-19")
@pytest.mark.parametrize("registry", ["htpasswd", "token", "tls"])
@pytest.mark.parametrize("builder", BUILDERS)
async def test_a_build_waits_for_the_secret_that_lets_it_push(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl, builder: str, registry: str
) -> None:
    host = stack.registries.hosts[registry]
    name = f"{host}/{builds.namespace}/{builder}:1"
    await builds.create("waits", inline(builder=builder, images=[name], **AUTH))
    waiting = await builds.phase("waits", "Pending")
    assert waiting.status["conditions"][0]["reason"] == "SecretNotFound"
    assert "Secret registry is not in namespace" in waiting.status["conditions"][0]["message"]
    await asyncio.to_thread(login, kubectl, host)
    created = time.monotonic()
    running = await builds.phase("waits", "Running")
    assert running.at - created < 2
    ended = (await builds.ended("waits")).status
    assert ended["phase"] == "Succeeded", ended
    assert builds.phases("waits") == ["Pending", "Running", "Succeeded"]
    digest = await asyncio.to_thread(digest_with_login, stack, name)
    assert digest == ended["imageDigest"]


@pytest.mark.row("A1")
@pytest.mark.row("seed-19")
@pytest.mark.parametrize("builder", BUILDERS)
async def test_a_private_base_image_is_pulled(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl, builder: str
) -> None:
    host = stack.registries.hosts["htpasswd"]
    base = f"{host}/{builds.namespace}/base:1"
    await asyncio.to_thread(login, kubectl, host)
    await builds.create("base", inline(images=[base], **AUTH))
    assert (await builds.ended("base")).status["phase"] == "Succeeded"
    text = f"FROM {base}\nLABEL for={builder}\n"
    await builds.create("top", inline(text, builder=builder, **AUTH))
    assert (await builds.ended("top")).status["phase"] == "Succeeded"
    await builds.create("nobody", inline(text + "LABEL b=1\n", builder=builder, pull=True))
    assert (await builds.ended("nobody")).status["phase"] == "Failed"


@pytest.mark.row("seed-19")
async def test_the_pull_secrets_of_the_service_account_count(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl
) -> None:
    host = stack.registries.hosts["token"]
    await asyncio.to_thread(login, kubectl, host, name="pull")
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "builder"},
        "imagePullSecrets": [{"name": "pull"}],
    }
    name = f"{host}/{builds.namespace}/account:1"
    await builds.create("account", inline(images=[name], serviceAccountName="builder"))
    waiting = await builds.phase("account", "Pending")
    assert "ServiceAccount builder" in waiting.status["conditions"][0]["message"]
    await asyncio.to_thread(kubectl, "apply", "-f", "-", text=json.dumps(account))
    assert (await builds.ended("account")).status["phase"] == "Succeeded"


@pytest.mark.row("F30")
@pytest.mark.parametrize("registry", ["htpasswd", "token"])
async def test_a_wrong_password_fails_at_once_and_is_not_repeated(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl, registry: str
) -> None:
    host = stack.registries.hosts[registry]
    wrong = f"wrong-{secrets.token_hex(8)}"
    await asyncio.to_thread(login, kubectl, host, wrong)
    spec = inline(images=[f"{host}/{builds.namespace}/wrong:1"], **AUTH)
    spec["annotations"] = {"of": "a build that an engine's own BuildKit does not take"}
    await builds.create("wrong", spec)
    ended = (await builds.ended("wrong")).status
    assert ended["failure"]["reason"] == "PushUnauthorized", ended
    assert ended["failure"]["retryable"] is False
    assert ended["attempt"] == 1
    assert wrong not in json.dumps(ended)


@pytest.mark.row("F30")
@pytest.mark.row("I6")
async def test_an_engine_that_is_not_let_in_keeps_the_image_and_says_its_id(
    stack: devstack.Stack, builds: Builds
) -> None:
    host = stack.registries.hosts["htpasswd"]
    names = [f"{stack.registry}/{builds.namespace}/first:1", f"{host}/{builds.namespace}/no:1"]
    await builds.create("partly", inline(builder="classic", images=names))
    ended = (await builds.ended("partly")).status
    assert ended["failure"]["reason"] == "PushUnauthorized", ended
    assert ended["imageID"].startswith("sha256:")
    assert [one["state"] for one in ended["images"]] == ["Pushed", "NotPushed"]
    assert crane(stack, "digest", names[0]) == ended["images"][0]["digest"]


@pytest.mark.row("F42")
async def test_a_secret_that_holds_no_logins_is_named_and_not_shown(
    builds: Builds, kubectl: Kubectl
) -> None:
    canary = secrets.token_hex(16)
    await asyncio.to_thread(secret, kubectl, "registry", {"password": canary})
    await builds.create("malformed", inline(images=["r.example/a:1"], **AUTH))
    ended = (await builds.ended("malformed")).status
    assert ended["failure"]["reason"] == "InvalidCredentials"
    assert "registry" in ended["failure"]["message"]
    assert canary not in json.dumps(ended)


@pytest.mark.row("F41")
async def test_a_rotated_password_is_used_by_the_next_build(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl
) -> None:
    host = stack.registries.hosts["htpasswd"]
    await asyncio.to_thread(login, kubectl, host, "old")
    spec = inline(images=[f"{host}/{builds.namespace}/rotated:1"], **AUTH)
    await builds.create("rotated", spec)
    assert (await builds.ended("rotated")).status["phase"] == "Failed"
    await asyncio.to_thread(login, kubectl, host)
    await builds.patch("rotated", {"spec": {"rebuildToken": "again"}})
    assert (await builds.ended("rotated", generation=2)).status["phase"] == "Succeeded"


async def test_a_step_reads_a_secret_and_the_image_does_not_hold_it(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl
) -> None:
    value = secrets.token_hex(16)
    text = (
        f"FROM {stack.base_image}\n"
        "RUN --mount=type=secret,id=npm,required=true sha256sum < /run/secrets/npm > /sum\n"
    )
    name = f"{stack.registry}/{builds.namespace}/mounted:1"
    mount = {"id": "npm", "secretRef": {"name": "npm", "key": "token"}}
    await builds.create("mounted", inline(text, images=[name], secrets=[mount]))
    await builds.phase("mounted", "Pending")
    await asyncio.to_thread(secret, kubectl, "npm", {"token": value})
    assert (await builds.ended("mounted")).status["phase"] == "Succeeded"
    found = await asyncio.to_thread(files_of, stack, name)
    assert found["sum"].split()[0].decode() == hashlib.sha256(value.encode()).hexdigest()
    assert value not in crane(stack, "config", name)


async def test_a_step_uses_a_key_that_it_cannot_read(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl
) -> None:
    pem, _ = await asyncio.to_thread(new_key)
    await asyncio.to_thread(secret, kubectl, "deploy", {"ssh-privatekey": pem.decode()})
    text = f"FROM {stack.base_image}\nRUN --mount=type=ssh,required=true test -S $SSH_AUTH_SOCK\n"
    mount = {"id": "default", "secretRef": {"name": "deploy", "key": "ssh-privatekey"}}
    await builds.create("ssh", inline(text, ssh=[mount]))
    ended = (await builds.ended("ssh")).status
    assert ended["phase"] == "Succeeded", ended


async def test_a_config_map_is_the_source_and_the_value_of_an_argument(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl
) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "files"},
        "data": {
            "Dockerfile": f"FROM {stack.base_image}\nARG GREETING\nRUN echo $GREETING > /said\n",
            "greeting": "from a config map",
        },
    }
    name = f"{stack.registry}/{builds.namespace}/configured:1"
    ref = {"configMapKeyRef": {"name": "files", "key": "greeting"}}
    spec = {
        "source": {"configMap": {"name": "files"}},
        "buildArgs": [{"name": "GREETING", "valueFrom": ref}],
        "images": [name],
    }
    await builds.create("configured", spec)
    waiting = await builds.phase("configured", "Pending")
    assert "ConfigMap files" in waiting.status["conditions"][0]["message"]
    await asyncio.to_thread(kubectl, "apply", "-f", "-", text=json.dumps(body))
    assert (await builds.ended("configured")).status["phase"] == "Succeeded"
    found = await asyncio.to_thread(files_of, stack, name)
    assert found["said"] == b"from a config map\n"


@pytest.mark.row("F60")
async def test_deleting_a_build_that_waits_for_a_secret_leaves_nothing(
    builds: Builds, workshop: OperatorProcess
) -> None:
    await builds.create("waits", inline(**AUTH))
    await builds.phase("waits", "Pending")
    await builds.delete("waits")
    await builds.gone("waits")
    assert not [event for event in workshop.events() if event.get("level") == "error"]


@pytest.mark.row("seed-20")
@pytest.mark.parametrize("builder", BUILDERS)
async def test_a_private_repository_is_opened_by_its_secret(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl, tmp_path: Path, builder: str
) -> None:
    token = secrets.token_hex(16)
    commit = await asyncio.to_thread(make_repository, tmp_path / "app", REPOSITORY)
    header = basic_header("me", token)
    name = f"{stack.registry}/{builds.namespace}/private:1"
    async with serve_git_over_http(tmp_path, header) as server:
        source = {"url": f"{server.url}/app", "secretRef": {"name": "git"}}
        spec = {
            "source": {"git": source},
            "builder": builder,
            "contextDir": "app",
            "images": [name],
        }
        await builds.create("private", spec)
        waiting = await builds.phase("private", "Pending")
        assert waiting.status["conditions"][0]["reason"] == "SecretNotFound"
        entries = {"username": "me", "password": token}
        await asyncio.to_thread(secret, kubectl, "git", entries)
        ended = (await builds.ended("private")).status
        assert ended["phase"] == "Succeeded", ended
        assert ended["source"]["revision"] == commit
        spec = {**spec, "source": {"git": {**source, "secretRef": {"name": "wrong"}}}}
        await asyncio.to_thread(secret, kubectl, "wrong", {"username": "me", "password": "no"})
        await builds.create("refused", spec)
        refused = (await builds.ended("refused")).status
        assert refused["phase"] == "Failed", refused
    assert set(server.shown) - {"", header} <= {basic_header("me", "no")}
    found = await asyncio.to_thread(files_of, stack, name)
    assert found["main.txt"] == b"from git\n"
