"""Who speaks to the API server: an admin, and the operator under the chart's own role."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from devstack.components import ADMIN_TOKEN, ApiServer

CHART = Path(__file__).parent.parent / "charts" / "imagewright"
SERVED_SECONDS = 15.0
NAMESPACE, ACCOUNT = "imagewright-system", "imagewright"
KINDS = (
    "CustomResourceDefinition",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
)


def admin_kubeconfig(server: ApiServer, path: Path) -> Path:
    """A kubeconfig for a cluster admin."""
    return _kubeconfig(server, ADMIN_TOKEN, path)


def operator_kubeconfig(tools: dict[str, Path], folder: Path) -> Path:
    """Install what the chart renders of kinds and roles; a kubeconfig of its service account.

    So the operator runs under the very role that is shipped, and a right that is missing there is
    missing here.
    """
    admin = folder / "admin.kubeconfig"
    rendered = folder / "chart.yaml"
    rendered.write_text(yaml.safe_dump_all(_rendered(tools["helm"])))
    kubectl = [str(tools["kubectl"]), f"--kubeconfig={admin}"]
    run([*kubectl, "apply", "--server-side", "--force-conflicts", f"--filename={rendered}"])
    run([*kubectl, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])
    _await_served([*kubectl, "get", "imagebuilds,buildcacheprunes", "--all-namespaces"])
    return renew_token(tools, folder)


def renew_token(tools: dict[str, Path], folder: Path) -> Path:
    """The operator's kubeconfig with a token that is good for a day. Raises RuntimeError."""
    admin, path = folder / "admin.kubeconfig", folder / "operator.kubeconfig"
    kubectl = [str(tools["kubectl"]), f"--kubeconfig={admin}", "--request-timeout=5s"]
    token = run(
        [*kubectl, "create", "token", ACCOUNT, f"--namespace={NAMESPACE}", "--duration=24h"]
    )
    config = json.loads(admin.read_text())
    config["users"][0]["user"]["token"] = token.strip()
    return _write(config, path)


def run(command: list[str], text: str | None = None) -> str:
    """What a program prints. Raises RuntimeError with what it said where it fails."""
    ended = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {ended.stderr.strip()}")
    return ended.stdout


def _await_served(listing: list[str]) -> None:
    """An established kind is served a moment later: until then the server says it initializes."""
    deadline = time.monotonic() + SERVED_SECONDS
    while True:
        try:
            run(listing)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _rendered(helm: Path) -> list[dict[str, Any]]:
    text = run([str(helm), "template", ACCOUNT, str(CHART), f"--namespace={NAMESPACE}"])
    documents = [one for one in yaml.safe_load_all(text) if one and one["kind"] in KINDS]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    return [namespace, *documents]


def _kubeconfig(server: ApiServer, token: str, path: Path) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "devstack",
                "cluster": {"server": server.url, "certificate-authority": str(server.ca)},
            }
        ],
        "users": [{"name": "devstack", "user": {"token": token}}],
        "contexts": [{"name": "devstack", "context": {"cluster": "devstack", "user": "devstack"}}],
        "current-context": "devstack",
    }
    return _write(content, path)


def _write(content: dict[str, Any], path: Path) -> Path:
    # At once: an operator that starts just now must not read half of it.
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(content))
    return fresh.rename(path)
