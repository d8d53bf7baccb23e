"""Registry logins as people keep them: what is read, what is refused, and what is never shown."""

import base64
import json
from typing import Any

import pytest

from imagewright.domain.credential import Login
from imagewright.domain.dockerconfig import InvalidConfig, host_of, logins_of

PAIR = base64.b64encode(b"me:pa:ss").decode()
CANARY = "canary-8f2c"


def config(**auths: Any) -> dict[str, bytes]:
    """A Secret's entries."""
    return {".dockerconfigjson": json.dumps({"auths": auths}).encode()}


READ: dict[str, tuple[dict[str, bytes], dict[str, Login]]] = {
    "a pair in base64": (
        config(**{"r.example": {"auth": PAIR}}),
        {"r.example": Login("me", "pa:ss")},
    ),
    "a pair in clear": (
        config(**{"r.example:5000": {"username": "me", "password": "x"}}),
        {"r.example:5000": Login("me", "x")},
    ),
    "an identity token": (
        config(**{"r.example": {"auth": PAIR, "identitytoken": "t"}}),
        {"r.example": Login("", "t")},
    ),
    "a registry as a URL": (
        config(**{"https://R.example/v2/": {"auth": PAIR}}),
        {"r.example": Login("me", "pa:ss")},
    ),
    "Docker Hub by its old name": (
        config(**{"https://index.docker.io/v1/": {"auth": PAIR}}),
        {"docker.io": Login("me", "pa:ss")},
    ),
    "the older form": (
        {".dockercfg": json.dumps({"r.example": {"auth": PAIR}}).encode()},
        {"r.example": Login("me", "pa:ss")},
    ),
    "no registry at all": (config(), {}),
}


@pytest.mark.parametrize(("entries", "logins"), READ.values(), ids=READ)
def test_logins_are_read_by_their_host(
    entries: dict[str, bytes], logins: dict[str, Login]
) -> None:
    assert logins_of(entries) == logins


REFUSED: dict[str, dict[str, bytes]] = {
    "another kind of Secret": {"password": CANARY.encode()},
    "no JSON": {".dockerconfigjson": f'{{"auths": {CANARY}'.encode()},
    "no text": {".dockerconfigjson": b"\xff" + CANARY.encode()},
    "a list": {".dockerconfigjson": json.dumps([CANARY]).encode()},
    "no auths": {".dockerconfigjson": json.dumps({"auth": CANARY}).encode()},
    "auths that are a list": {".dockerconfigjson": json.dumps({"auths": [CANARY]}).encode()},
    "an entry that is a text": config(**{"r.example": CANARY}),
    "an entry without anything": config(**{"r.example": {"email": CANARY}}),
    "a pair that is no base64": config(**{"r.example": {"auth": f"%{CANARY}"}}),
    "a pair that is no text": config(
        **{"r.example": {"auth": base64.b64encode(b"\xff" + CANARY.encode()).decode()}}
    ),
    "a pair without a colon": config(
        **{"r.example": {"auth": base64.b64encode(CANARY.encode()).decode()}}
    ),
    "a password that is a number": config(**{"r.example": {"username": CANARY, "password": 1}}),
}


@pytest.mark.row("F42")
@pytest.mark.parametrize("entries", REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_and_never_shown(entries: dict[str, bytes]) -> None:
    with pytest.raises(InvalidConfig) as caught:
        logins_of(entries)
    shown = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert CANARY not in shown
    assert base64.b64encode(CANARY.encode()).decode()[:12] not in shown


def test_a_login_does_not_show_its_password() -> None:
    assert "pa:ss" not in repr(Login("me", "pa:ss"))


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub_has_one_name(name: str) -> None:
    assert host_of(f"https://{name}/v1/") == "docker.io"
