"""Who we are to the API server: from kubeconfigs, plugins and Pods."""

import asyncio
import base64
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from imagewright.kube import access as module
from imagewright.kube import identity
from imagewright.kube.access import Access, load_access
from imagewright.kube.identity import NoAccess
from imagewright.kube.kubeconfig import read_context

SERVER = "https://cluster.example:6443"
AUTHORITY = trustme.CA()
PLUGIN = """
import json, os, sys
asked = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert asked["kind"] == "ExecCredential" and not asked["spec"]["interactive"]
with open(sys.argv[1], "a") as runs:
    runs.write("run\\n")
status = json.loads(os.environ["STATUS"])
print(json.dumps({"apiVersion": asked["apiVersion"], "kind": "ExecCredential", "status": status}))
"""


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def config_of(user: dict[str, Any], **cluster: Any) -> dict[str, Any]:
    """A kubeconfig of one context."""
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": SERVER, **cluster}}],
        "users": [{"name": "u", "user": user}],
    }


async def access_of(folder: Path, user: dict[str, Any], **cluster: Any) -> Access:
    """What is loaded from a kubeconfig with this user."""
    path = folder / "kubeconfig"
    await asyncio.to_thread(path.write_text, yaml.safe_dump(config_of(user, **cluster)))
    return await load_access(str(path))


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ({"token": "t"}, "Bearer t"),
        ({"tokenFile": "token.txt"}, "Bearer from-a-file"),
        ({"tokenFile": "token.txt", "token": "t"}, "Bearer from-a-file"),
        ({"username": "ada", "password": "pw"}, f"Basic {base64_of('ada:pw')}"),
        ({}, ""),
    ],
    ids=[
        "a token",
        "a file with a token, beside the kubeconfig",
        "the file comes before the token",
        "a name and a password",
        "nobody",
    ],
)
async def test_a_kubeconfig_says_who_asks(
    tmp_path: Path, user: dict[str, Any], header: str
) -> None:
    (tmp_path / "token.txt").write_text("from-a-file\n")
    access = await access_of(tmp_path, user)
    assert (access.server, await access.authorization()) == (SERVER, header)


def plugin_of(folder: Path, status: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A user with an exec plugin that answers so, and counts its runs in `runs`."""
    (folder / "plugin.py").write_text(PLUGIN)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(folder / "plugin.py"), str(folder / "runs")],
            "env": [{"name": "STATUS", "value": json.dumps(status)}],
            **more,
        }
    }


@pytest.mark.parametrize(
    ("expires", "runs"),
    [("2001-01-01T00:00:00Z", 3), ("2999-01-01T00:00:00Z", 1), (None, 1)],
    ids=["one that is over is asked for anew", "one that holds is kept", "so is one without end"],
)
async def test_a_plugin_says_who_asks(tmp_path: Path, expires: str | None, runs: int) -> None:
    status = {"token": "t", **({"expirationTimestamp": expires} if expires else {})}
    access = await access_of(tmp_path, plugin_of(tmp_path, status))
    assert [await access.authorization() for _ in range(2)] == ["Bearer t"] * 2
    assert (tmp_path / "runs").read_text().count("run") == runs


@pytest.mark.parametrize("given", ["data", "file", "plugin"])
async def test_a_certificate_says_who_asks(tmp_path: Path, given: str) -> None:
    pair = AUTHORITY.issue_cert("someone.example")
    key = pair.private_key_pem.bytes().decode()
    chain = "".join(blob.bytes().decode() for blob in pair.cert_chain_pems)
    (tmp_path / "chain.pem").write_text(chain)
    (tmp_path / "key.pem").write_text(key)
    user: dict[str, Any] = {
        "data": {"client-certificate-data": base64_of(chain), "client-key-data": base64_of(key)},
        "file": {"client-certificate": "chain.pem", "client-key": "key.pem"},
        "plugin": plugin_of(tmp_path, {"clientCertificateData": chain, "clientKeyData": key}),
    }[given]
    authority = AUTHORITY.cert_pem.bytes().decode()
    data = {"certificate-authority-data": base64_of(authority)}
    access = await access_of(tmp_path, user, **data)
    assert await access.authorization() == ""
    mine = await asyncio.to_thread(access.tls)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(served)
    AUTHORITY.issue_cert("cluster.example").configure_cert(served)
    assert spoken_to(served, mine) == (("DNS", "someone.example"),)


def spoken_to(served: ssl.SSLContext, mine: ssl.SSLContext) -> Any:
    """Shake hands in memory: the names in the certificate that the server was shown."""
    wires = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = served.wrap_bio(wires[0], wires[1], server_side=True)
    client = mine.wrap_bio(wires[1], wires[0], server_hostname="cluster.example")
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    seen = server.getpeercert() or {}
    return seen["subjectAltName"]


async def test_a_server_is_not_checked_where_the_kubeconfig_says_so(tmp_path: Path) -> None:
    loose = await access_of(tmp_path, {}, **{"insecure-skip-tls-verify": True})
    strict = await access_of(tmp_path, {})
    modes = [(await asyncio.to_thread(access.tls)).verify_mode for access in (loose, strict)]
    assert modes == [ssl.CERT_NONE, ssl.CERT_REQUIRED]


async def test_of_several_kubeconfigs_the_first_that_has_a_name_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_CLUSTER", tmp_path / "none")
    first, second = tmp_path / "first", tmp_path / "second"
    users = [{"name": "u", "user": {"token": "first"}}]
    first.write_text(yaml.safe_dump({"users": users}))
    second.write_text(yaml.safe_dump(config_of({"token": "second"})))
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'absent'}:{second}")
    access = await load_access()
    assert (access.server, await access.authorization()) == (SERVER, "Bearer first")


@pytest.mark.parametrize(
    ("host", "server"),
    [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")],
    ids=["an address of version 4", "an address of version 6"],
)
async def test_a_pod_reads_its_token_again_before_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, server: str
) -> None:
    monkeypatch.setattr(module, "IN_CLUSTER", tmp_path)
    monkeypatch.setattr(identity, "TOKEN_SECONDS", -1.0)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("first")
    access = await load_access()
    (tmp_path / "token").write_text("second\n")
    assert (access.server, await access.authorization()) == (server, "Bearer second")
    assert (await asyncio.to_thread(access.tls)).cert_store_stats()["x509_ca"] == 1


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("no user of that name", {"users": []}, "names the user 'u'"),
    ("no current context", {"current-context": ""}, "names the context ''"),
    ("no server", {"clusters": [{"name": "c", "cluster": {}}]}, "has no server"),
    (
        "a proxy",
        {"clusters": [{"name": "c", "cluster": {"server": SERVER, "proxy-url": "http://p"}}]},
        "has a proxy-url, which is not supported",
    ),
    (
        "an auth provider",
        {"users": [{"name": "u", "user": {"auth-provider": {"name": "gcp"}}}]},
        "exec plugin",
    ),
    (
        "a plugin that is not there",
        {"users": [{"name": "u", "user": {"exec": {"command": "./no-such-plugin"}}}]},
        "no-such-plugin failed",
    ),
    (
        "a plugin that answers nothing",
        {"users": [{"name": "u", "user": {"exec": {"command": "true"}}}]},
        "true answered no ExecCredential",
    ),
    (
        "a token file that is not there",
        {"users": [{"name": "u", "user": {"tokenFile": "absent"}}]},
        "cannot be read",
    ),
    (
        "a certificate file that is not there",
        {"users": [{"name": "u", "user": {"client-certificate": "absent"}}]},
        "client-certificate cannot be read",
    ),
]


@pytest.mark.parametrize(
    ("changed", "said"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
async def test_what_is_wrong_with_a_kubeconfig_is_said(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump({**config_of({}), **changed}))
    with pytest.raises(NoAccess, match=said):
        await load_access(str(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "There is no kubeconfig"), ("token: [s3cret", "cannot be read"), ("a", "no fields")],
    ids=["no file", "no YAML", "no mapping"],
)
async def test_what_is_no_kubeconfig_is_said_and_not_quoted(
    tmp_path: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    with pytest.raises(NoAccess, match=said) as caught:
        await load_access(str(path))
    assert "s3cret" not in str(caught.value)


async def test_no_secret_is_in_what_is_printed(tmp_path: Path) -> None:
    access = await access_of(tmp_path, {"token": "s3cret"})
    context = await asyncio.to_thread(read_context, str(tmp_path / "kubeconfig"))
    assert "s3cret" not in repr([access, context, context.identify()])
