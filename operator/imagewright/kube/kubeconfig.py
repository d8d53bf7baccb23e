"""Kubeconfigs: which server, whom it trusts, and who we are to it. Everything here blocks.

The fields are those of `kubectl config`; several files are merged as kubectl does, the first that
has a name wins, and relative paths start from the file that they are written in.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from imagewright.kube.identity import Identity, NoAccess, from_token_file
from imagewright.kube.plugin import run_plugin


@dataclass(frozen=True, slots=True)
class Entry:
    """A cluster or a user of a kubeconfig, and the folder that its relative paths start from."""

    folder: Path
    fields: Mapping[str, Any] = field(repr=False)

    def text(self, key: str) -> str:
        """What `key`-data holds, or the file that `key` names; empty where there is neither.

        Raises NoAccess.
        """
        try:
            if data := self.fields.get(f"{key}-data"):
                return base64.b64decode(data).decode()
            return (self.folder / name).read_text() if (name := self.fields.get(key)) else ""
        except (OSError, ValueError) as error:
            raise NoAccess(f"The kubeconfig's {key} cannot be read: {error}.") from error


@dataclass(frozen=True, slots=True)
class Context:
    """The current context: a cluster, and a user of it."""

    cluster: Entry
    user: Entry

    def identify(self) -> Identity:
        """Who we are, asked anew. Raises NoAccess."""
        user = self.user.fields
        if "auth-provider" in user:
            raise NoAccess(
                "The kubeconfig's user has an auth-provider, which Kubernetes has given up: "
                "give it a token, a certificate or an exec plugin."
            )
        if "exec" in user:
            return run_plugin(user["exec"], self.user.folder)
        if user.get("tokenFile"):
            return from_token_file(self.user.folder / user["tokenFile"])
        return Identity(
            header=_header(user),
            certificate=self.user.text("client-certificate"),
            key=self.user.text("client-key"),
        )


def read_context(paths: str) -> Context:
    """The current context of these files, split by colons as in $KUBECONFIG. Raises NoAccess."""
    files = [Path(path).expanduser() for path in paths.split(":") if path]
    found = [(path.parent, _read(path)) for path in files if path.exists()]
    if not found:
        raise NoAccess(f"There is no kubeconfig at {paths}, and no cluster around us.")
    name = next(
        (config["current-context"] for _, config in found if "current-context" in config), ""
    )
    context = _entry(found, "context", name).fields
    user = context.get("user")
    return Context(
        _entry(found, "cluster", context.get("cluster", "")),
        _entry(found, "user", user) if user else Entry(Path(), {}),
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        # Not the parser's own text: it quotes the lines around, and these hold tokens.
        raise NoAccess(f"The kubeconfig {path} cannot be read: {type(error).__name__}.") from error
    if not isinstance(config, dict):
        raise NoAccess(f"The kubeconfig {path} is not one: it has no fields.")
    return config


def _entry(found: list[tuple[Path, Mapping[str, Any]]], kind: str, name: str) -> Entry:
    for folder, config in found:
        for one in config.get(f"{kind}s") or ():
            if one.get("name") == name:
                return Entry(folder, one.get(kind) or {})
    raise NoAccess(f"The kubeconfig names the {kind} {name!r}, but has none of that name.")


def _header(user: Mapping[str, Any]) -> str:
    if user.get("token"):
        return f"Bearer {user['token']}"
    if user.get("username"):
        pair = f"{user['username']}:{user.get('password', '')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    return ""
