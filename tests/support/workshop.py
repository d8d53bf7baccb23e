"""An operator with a worker of each kind, and the Secrets that builds there are given."""

import base64
import json
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import devstack
from devstack.operator import OperatorProcess, start_operator
from devstack.registries import PASSWORD, USERNAME
from devstack.tokens import SERVICE
from tests.support.stack import Kubectl


@pytest.fixture(scope="module")
def workshop(
    stack: devstack.Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """An operator with a BuildKit daemon and a Docker Engine."""
    engine = stack.engine("new", lambda _: None)
    running = start_operator(
        tmp_path_factory.mktemp("workshop"),
        stack.operator_kubeconfig,
        pools=[{"workers": [stack.buildkit, f"docker+{engine.address}"], "slots": 4}],
        registries={"ca": str(stack.registries.ca)},
    )
    yield running
    running.stop()


def login(kubectl: Kubectl, host: str, password: str = PASSWORD, name: str = "registry") -> None:
    """Create a Secret with a login, or change it."""
    login_of(kubectl, host, (USERNAME, password), name)


def login_of(kubectl: Kubectl, host: str, who: tuple[str, str], name: str = "registry") -> None:
    """The same for somebody else: a name and a password."""
    auth = base64.b64encode(":".join(who).encode()).decode()
    config = json.dumps({"auths": {host: {"auth": auth}}})
    secret(kubectl, name, {".dockerconfigjson": config}, "kubernetes.io/dockerconfigjson")


def secret(kubectl: Kubectl, name: str, entries: Mapping[str, str], kind: str = "Opaque") -> None:
    """Create a Secret, or change it."""
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": kind,
        "stringData": dict(entries),
    }
    kubectl("apply", "-f", "-", text=json.dumps(body))


def digest_with_login(stack: devstack.Stack, name: str) -> str:
    """What the name stands for in a registry that wants to know who asks."""
    host, _, rest = name.partition("/")
    repository, _, tag = rest.partition(":")
    tls = host == stack.registries.hosts["tls"]
    context = ssl.create_default_context(cafile=str(stack.registries.ca)) if tls else None
    basic = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    shown = f"Basic {basic}"
    if host == stack.registries.hosts["token"]:
        service = f"http://127.0.0.1:{stack.registries.ports['tokens']}/token"
        query = f"service={SERVICE}&scope=repository:{repository}:pull"
        with asked(f"{service}?{query}", shown) as answer:
            shown = f"Bearer {json.load(answer)['token']}"
    url = f"{'https' if tls else 'http'}://{host}/v2/{repository}/manifests/{tag}"
    with asked(url, shown, context) as answer:
        return str(answer.headers["Docker-Content-Digest"])


def asked(url: str, shown: str, context: ssl.SSLContext | None = None) -> Any:
    """The answer to a request that says who we are."""
    kinds = "application/vnd.oci.image.manifest.v1+json"
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    headers = {"Authorization": shown, "Accept": f"{kinds}, {docker}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # loopback
    return urllib.request.urlopen(request, context=context, timeout=10)  # noqa: S310
