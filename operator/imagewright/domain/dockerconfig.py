"""Registry logins as Docker and Kubernetes keep them: config.json and the older .dockercfg."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from imagewright.domain.credential import Login

JSON, LEGACY = ".dockerconfigjson", ".dockercfg"
"""The keys under which Secrets of the two Kubernetes types hold them."""
HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
HUB = "docker.io"


class InvalidConfig(ValueError):
    """The Secret does not hold registry logins. The text never shows what it does hold."""


def logins_of(entries: Mapping[str, bytes]) -> dict[str, Login]:
    """Host (with its port) to login, from a Secret's entries. Raises InvalidConfig."""
    if JSON in entries:
        auths = _object(_parsed(entries[JSON], JSON).get("auths"), "auths")
    elif LEGACY in entries:
        auths = _parsed(entries[LEGACY], LEGACY)
    else:
        raise InvalidConfig(
            f"it has no key {JSON}: make it with kubectl create secret docker-registry"
        )
    return {host_of(key): _login(host_of(key), found) for key, found in auths.items()}


def host_of(key: str) -> str:
    """The registry that a key such as `https://index.docker.io/v1/` names."""
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0].lower()
    return HUB if host in HUB_HOSTS else host


def _parsed(content: bytes, key: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        # Neither the content nor the parser's error, which would quote it.
        raise InvalidConfig(f"{key} is no JSON") from None
    return _object(found, key)


def _object(found: Any, name: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InvalidConfig(f"{name} is no JSON object of registries")
    return found


def _login(host: str, found: Any) -> Login:
    """One entry: `identitytoken`, `username` with `password`, or both in `auth` as base64."""
    held = _object(found, host)
    if token := held.get("identitytoken"):
        return Login("", _text(host, token))
    if held.get("username"):
        return Login(_text(host, held["username"]), _text(host, held.get("password", "")))
    try:
        pair = base64.b64decode(_text(host, held.get("auth", "")), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidConfig(f"the auth of {host} is no base64 of user:password") from None
    username, colon, password = pair.partition(":")
    if not colon:
        raise InvalidConfig(f"{host} has neither auth nor username and password")
    # Docker pads what it encodes with NULs.
    return Login(username, password.rstrip("\0"))


def _text(host: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidConfig(f"an entry of {host} is no text")
    return value
