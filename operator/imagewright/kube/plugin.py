"""Exec plugins of kubeconfigs: programs that say who we are (client.authentication.k8s.io)."""

import json
import math
import os
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imagewright.kube.identity import Identity, NoAccess

PLUGIN_SECONDS = 60.0


def run_plugin(config: Mapping[str, Any], folder: Path) -> Identity:
    """What the plugin answers; `config` is the user's `exec`. Raises NoAccess; blocks.

    A command with a slash in it is relative to `folder`, others are found on PATH.
    """
    command = str(config.get("command", ""))
    program = str(folder / command) if "/" in command else command
    asked = {
        "apiVersion": config.get("apiVersion"),
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    given = {one["name"]: one["value"] for one in config.get("env") or ()}
    try:
        done = subprocess.run(
            [program, *(config.get("args") or ())],
            env={**os.environ, **given, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
            timeout=PLUGIN_SECONDS,
        )
        return _identity(json.loads(done.stdout)["status"])
    except (OSError, subprocess.SubprocessError) as error:
        raise NoAccess(f"The kubeconfig's exec plugin {command} failed: {error}.") from error
    except (ValueError, KeyError, TypeError) as error:
        # What it answered may hold a token, so it is not quoted.
        raise NoAccess(
            f"The kubeconfig's exec plugin {command} answered no ExecCredential with a status."
        ) from error


def _identity(status: Mapping[str, Any]) -> Identity:
    token, expires = status.get("token"), status.get("expirationTimestamp")
    return Identity(
        header=f"Bearer {token}" if token else "",
        certificate=status.get("clientCertificateData", ""),
        key=status.get("clientKeyData", ""),
        until=math.inf if expires is None else time.monotonic() + _seconds_until(expires),
    )


def _seconds_until(timestamp: str) -> float:
    return (datetime.fromisoformat(timestamp) - datetime.now(UTC)).total_seconds()
