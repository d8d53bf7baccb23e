"""Who we are, as an engine reads it."""

import base64
import json
from typing import Any

import pytest

from imagewright.clients.engine.auth import HUB, Login, build_header, push_header

TRICKY = Login("me", "\u00fb\u00ff?>~~~")
"""In the standard alphabet this has a + or a /."""


def decoded(header: str) -> Any:
    assert len(header) % 4 == 0, "The padding is there."
    assert not set(header) & set("+/"), "The alphabet is that for URLs."
    return json.loads(base64.urlsafe_b64decode(header))


@pytest.mark.parametrize(
    "password", ["", "a", "ab", "abc", "abcd", *(chr(n) * 3 for n in range(32, 128))]
)
def test_a_header_is_padded_base64_for_urls(password: str) -> None:
    found = decoded(build_header({"r.test": Login("me", password)}))

    assert found == {"r.test": {"username": "me", "password": password}}


@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "registry-1.docker.io", HUB])
def test_docker_hub_has_a_name_of_its_own(host: str) -> None:
    assert list(decoded(build_header({host: TRICKY}))) == [HUB]
    assert decoded(push_header(TRICKY, host))["serveraddress"] == HUB


def test_a_login_without_a_name_is_a_token() -> None:
    assert decoded(build_header({"r.test": Login("", "tok")})) == {
        "r.test": {"identitytoken": "tok"}
    }


def test_a_push_shows_one_login() -> None:
    assert decoded(push_header(TRICKY, "r.test:5000")) == {
        "username": "me",
        "password": TRICKY.password,
        "serveraddress": "r.test:5000",
    }


def test_nobody_is_an_empty_login() -> None:
    assert decoded(push_header(None, "r.test")) == {}


def test_a_password_is_not_shown() -> None:
    assert "s3cret" not in repr(Login("me", "s3cret"))
