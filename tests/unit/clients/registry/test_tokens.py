"""Tokens from a service on loopback: how it is asked, what is taken, where nothing is sent."""

import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from imagewright.clients.registry.credential import Credential
from imagewright.clients.registry.tokens import (
    MAX_ANSWER,
    Challenge,
    Token,
    TokenClient,
    TokenRefused,
)

ME = Credential("me", "s3cret")
SCOPES = ("repository:a:pull", "repository:b:pull,push")


@dataclass
class Service:
    """A token service: what it was asked, and what it answers by method."""

    port: int = 0
    seen: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)
    answers: dict[str, Callable[[], web.Response]] = field(default_factory=dict)

    async def answer(self, request: web.Request) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        header = request.headers.get("Authorization", "")
        self.seen.append((request.method, request.path_qs, form, header))
        return self.answers[request.method]()

    def challenge(self, path: str = "/token", host: str = "127.0.0.1:5000") -> Challenge:
        return Challenge(host, f"http://127.0.0.1:{self.port}{path}", "svc", SCOPES)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


def gives(status: int = 200, **fields: Any) -> Callable[[], web.Response]:
    return lambda: web.json_response(fields, status=status)


async def test_a_password_is_posted_and_the_token_taken(service: Service) -> None:
    service.answers["POST"] = gives(
        access_token="t0ken", expires_in=300, issued_at="2026-01-02T03:04:05.123456789Z"
    )
    token = await TokenClient().fetch(service.challenge(), ME)

    issued = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp())
    assert token == Token("t0ken", 300, issued)
    expected = {
        "grant_type": "password",
        "service": "svc",
        "scope": " ".join(SCOPES),
        "client_id": "buildkit-client",
        "username": "me",
        "password": "s3cret",
    }
    assert service.seen == [("POST", "/token", expected, "")]


async def test_an_identity_token_is_posted_as_a_refresh_token(service: Service) -> None:
    service.answers["POST"] = gives(access_token="t0ken")
    await TokenClient().fetch(service.challenge(), Credential("", "1dentity"))
    ((_, _, form, _),) = service.seen

    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "1dentity")
    assert "password" not in form


@pytest.mark.parametrize("status", [401, 404, 405])
async def test_a_service_that_knows_no_post_is_asked_by_get(service: Service, status: int) -> None:
    service.answers = {"POST": gives(status), "GET": gives(token="t0ken")}
    token = await TokenClient().fetch(service.challenge("/token?account=x"), ME)
    _, path, _, header = service.seen[1]

    assert token == Token("t0ken", 60, 0)
    assert path == (
        "/token?account=x&service=svc&scope=repository:a:pull&scope=repository:b:pull,push"
    )
    assert base64.b64decode(header.removeprefix("Basic ")) == b"me:s3cret"


async def test_nobody_asks_by_get_without_a_header(service: Service) -> None:
    service.answers["GET"] = gives(token="t0ken")
    await TokenClient().fetch(service.challenge(), None)

    assert [(method, header) for method, _, _, header in service.seen] == [("GET", "")]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"expires_in": 0}, 60, id="no time is a minute"),
        pytest.param({"expires_in": -5}, 60, id="less than none too"),
        pytest.param({"expires_in": "300"}, 60, id="a text is no time"),
        pytest.param({"expires_in": 1e300}, 60, id="nor is eternity"),
        pytest.param({"expires_in": 120.5}, 120, id="a part of a second is not counted"),
    ],
)
async def test_a_token_says_how_long_it_lives(
    service: Service, fields: dict[str, Any], expected: int
) -> None:
    service.answers["POST"] = gives(access_token="t", **fields)

    assert (await TokenClient().fetch(service.challenge(), ME)).expires_seconds == expected


@pytest.mark.parametrize("issued", ["yesterday", "0001-01-01T00:00:00", 5, "1900-01-01T00:00:00Z"])
async def test_a_time_that_is_none_is_unknown(service: Service, issued: object) -> None:
    service.answers["POST"] = gives(access_token="t", issued_at=issued)

    assert (await TokenClient().fetch(service.challenge(), ME)).issued == 0


def redirect() -> web.Response:
    return web.Response(status=307, headers={"Location": "/elsewhere"})


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(gives(403), "unauthorized, with status 403", id="who may not"),
        pytest.param(gives(503), "answered with status 503", id="a service that is down"),
        pytest.param(redirect, "redirects are not followed", id="a redirect"),
        pytest.param(gives(), "without a token", id="an object without a token"),
        pytest.param(gives(token=["t"]), "without a token", id="a token that is no text"),
        pytest.param(lambda: web.Response(text="[" * 100_000), "without a token", id="deep JSON"),
        pytest.param(lambda: web.Response(text="[1]"), "without a token", id="a list"),
        pytest.param(lambda: web.Response(body=b"\xff"), "without a token", id="no text at all"),
        pytest.param(lambda: web.Response(body=b" " * (MAX_ANSWER + 1)), "too long", id="a flood"),
    ],
)
async def test_no_token_is_a_sentence_without_the_secret(
    service: Service, answer: Callable[[], web.Response], text: str
) -> None:
    service.answers["POST"] = answer
    with pytest.raises(TokenRefused, match=text) as caught:
        await TokenClient().fetch(service.challenge(), ME)

    assert "127.0.0.1:5000" in str(caught.value)
    assert "s3cret" not in repr(caught.value)
    assert len(service.seen) == 1


async def test_after_post_and_get_the_answer_is_final(service: Service) -> None:
    service.answers = {"POST": gives(401), "GET": gives(401)}
    with pytest.raises(TokenRefused, match="check the user name"):
        await TokenClient().fetch(service.challenge(), ME)


async def test_a_service_that_hangs_is_given_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagewright.clients.registry.tokens.SECONDS", 0)
    with pytest.raises(TokenRefused, match="deadline exceeded"):
        await TokenClient().fetch(service.challenge(), ME)


async def test_nobody_there_is_said_in_the_words_of_daemons() -> None:
    with pytest.raises(TokenRefused, match=r"(?i)connection refused"):
        await TokenClient().fetch(Challenge("localhost:1", "http://127.0.0.1:1/token"), ME)


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        pytest.param("evil.test", (), id="a registry elsewhere, and our own loopback"),
        pytest.param("evil.test:5000", ("evil.test:5000",), id="plain http for the registry only"),
        pytest.param("127.0.0.1.evil.test", (), id="a name that begins like loopback"),
        pytest.param("", (), id="a registry without a name"),
    ],
)
async def test_nothing_is_sent_in_plain_http_that_nobody_allowed(
    service: Service, host: str, plain: tuple[str, ...]
) -> None:
    with pytest.raises(TokenRefused):
        await TokenClient(plain).fetch(service.challenge(host=host), ME)

    assert service.seen == []


async def test_plain_http_is_spoken_to_a_host_that_it_is_allowed_for(service: Service) -> None:
    service.answers["POST"] = gives(access_token="t")
    client = TokenClient([f"127.0.0.1:{service.port}"])

    assert (await client.fetch(service.challenge(host="registry.test"), ME)).value == "t"


@pytest.mark.parametrize(
    "realm",
    [
        "",
        "/token",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "https://",
        "https://me@127.0.0.1/token",
        "http://127.0.0.1:99999/",
        "https://[::1/",
    ],
)
async def test_a_realm_that_is_none_is_refused(realm: str) -> None:
    with pytest.raises(TokenRefused, match="names no token service"):
        await TokenClient().fetch(Challenge("127.0.0.1:5000", realm), ME)


async def test_a_service_whose_certificate_is_not_trusted_gets_nothing(service: Service) -> None:
    realm = f"https://127.0.0.1:{service.port}/token"
    with pytest.raises(TokenRefused, match="certificate is not trusted"):
        await TokenClient().fetch(Challenge("127.0.0.1:5000", realm), ME)

    assert service.seen == []


def test_a_token_does_not_show_itself() -> None:
    assert "t0ken" not in repr(Token("t0ken"))
