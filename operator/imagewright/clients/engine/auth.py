"""Who we are in a registry, in the two headers that an engine reads.

Both are base64 in the alphabet for URLs, with padding. In any other form an engine takes them for
absent, without an error.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FOR_BUILD = "X-Registry-Config"
"""The header of a build: only the classic builder reads it."""
FOR_PUSH = "X-Registry-Auth"
HUB = "https://index.docker.io/v1/"
HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Login:
    """A name and its password in one registry. An empty name makes it an identity token."""

    username: str
    password: str = field(repr=False)


def build_header(registries: Mapping[str, Login]) -> str:
    """The value of FOR_BUILD: each registry's host to the login there."""
    return _encoded({key_of(host): _fields(login) for host, login in registries.items()})


def push_header(login: Login | None, host: str = "") -> str:
    """The value of FOR_PUSH. Engines before 24 want it from nobody, too."""
    if login is None:
        return _encoded({})
    return _encoded({**_fields(login), "serveraddress": key_of(host)})


def key_of(host: str) -> str:
    """The name under which an engine looks a registry up."""
    return HUB if host in HUB_HOSTS else host


def _fields(login: Login) -> dict[str, str]:
    if not login.username:
        return {"identitytoken": login.password}
    return {"username": login.username, "password": login.password}


def _encoded(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
