"""Registry tokens, fetched by ourselves so that a daemon never sees the password.

The registry names a token service (its realm); that is asked for a token of some scopes, by POST
(the distribution project's "OAuth2 token authentication"), or by GET with the password in the
header where POST is not known ("token authentication specification").
"""

import asyncio
import base64
import ipaddress
import json
import os
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from imagewright.clients.registry.credential import Credential

SECONDS = 30
"""For a whole fetch. The daemon waits for 60."""
MAX_ANSWER = 1 << 20
"""Bytes. Tokens are some KiB."""
EXPIRES_SECONDS = 60
"""How long a token lives that does not say so (the specification of token authentication)."""
LONGEST_SECONDS = 1 << 31
CLIENT_ID = "buildkit-client"
NO_POST = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})
"""What services answer to POST that know only GET."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry asks for: a token of its service's for these scopes."""

    host: str
    realm: str
    service: str = ""
    scopes: tuple[str, ...] = ()
    client_id: str = CLIENT_ID


@dataclass(frozen=True, slots=True)
class Token:
    """A token, how long it is good for, and since when (seconds since the epoch; 0: unknown)."""

    value: str = field(repr=False)
    expires_seconds: int = EXPIRES_SECONDS
    issued: int = 0


class TokenRefused(Exception):
    """There is no token. The text says why and names no secret."""


class TokenUnreachable(TokenRefused):
    """The service did not answer, or is overrun: it may give one later."""


class _Answer(NamedTuple):
    status: int
    body: bytes


class TokenClient:
    """Fetches tokens, and sends a credential only where it belongs.

    * It was found for the registry's own host and no other, so a service gets at most what that
      registry would get.
    * The service is one on https, as the registry named it: many registries keep theirs on another
      host, so its host is not compared. That the registry named it is the daemon's word, to whom
      the `Credentials` call would give the password itself.
    * Plain http only to a host of `plain_http` (`host` or `host:port`, as in the realm), and from
      a registry on loopback to a service on loopback.
    * A redirect is not followed, with a credential or without: it ends in an error.

    `tls` replaces the system's authorities.
    """

    def __init__(
        self, plain_http: Collection[str] = (), tls: ssl.SSLContext | None = None
    ) -> None:
        self._plain = frozenset(map(_address, plain_http))
        self._tls = tls

    async def fetch(self, challenge: Challenge, credential: Credential | None) -> Token:
        """A token for that credential, or for nobody. Raises TokenRefused."""
        realm = self._realm(challenge)
        who = f"The token service {realm.origin()} of the registry {challenge.host}"
        connector = aiohttp.TCPConnector(ssl=self._tls or True)
        # A netrc or a proxy of the environment must not get into this.
        client = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        )
        try:
            async with asyncio.timeout(SECONDS), client:
                answer = await _ask(client, realm, challenge, credential)
        except TimeoutError:
            raise TokenUnreachable(
                f"{who} did not answer in {SECONDS} s: deadline exceeded."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            # Errors of aiohttp show the whole request, with the password.
            raise TokenUnreachable(f"{who} cannot be reached: {_reason(error)}.") from None
        return _token(answer, who, known=credential is not None)

    def _realm(self, challenge: Challenge) -> URL:
        """The service's URL, where it may be asked at all."""
        try:
            realm = URL(challenge.realm)
            address, registry = (realm.host, realm.port), _address(challenge.host)
        except ValueError:
            realm, address, registry = URL(), (None, None), (None, None)
        if not realm.host or realm.user is not None or realm.scheme not in {"http", "https"}:
            raise TokenRefused(f"The registry {challenge.host} names no token service to ask.")
        local = _loopback(realm.host) and _loopback(registry[0])
        if realm.scheme == "http" and address not in self._plain and not local:
            raise TokenRefused(
                f"The registry {challenge.host} names a token service on plain http, "
                f"{realm.origin()}: let it name one on https, or allow plain http for that host."
            )
        return realm.with_fragment(None)


async def _ask(
    client: aiohttp.ClientSession, realm: URL, challenge: Challenge, credential: Credential | None
) -> _Answer:
    query = [("service", challenge.service)] if challenge.service else []
    query += [("scope", scope) for scope in challenge.scopes]
    get = realm.extend_query(query)
    if credential is None:
        return await _request(client, "GET", get)
    form = aiohttp.FormData(_form(challenge, credential))
    answer = await _request(client, "POST", realm, data=form)
    if answer.status in NO_POST and credential.username:
        pair = f"{credential.username}:{credential.secret}".encode()
        headers = {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return await _request(client, "GET", get, headers=headers)
    return answer


def _form(challenge: Challenge, credential: Credential) -> dict[str, str]:
    form = {"client_id": challenge.client_id, "scope": " ".join(challenge.scopes)}
    form["service"] = challenge.service
    if not credential.username:
        return {**form, "grant_type": "refresh_token", "refresh_token": credential.secret}
    password = {"username": credential.username, "password": credential.secret}
    return {**form, "grant_type": "password", **password}


async def _request(client: aiohttp.ClientSession, method: str, url: URL, **more: Any) -> _Answer:
    # Nothing is unpacked, so what is counted is what is kept.
    headers: Mapping[str, str] = {"Accept-Encoding": "identity", **more.pop("headers", {})}
    async with client.request(
        method, url, headers=headers, allow_redirects=False, **more
    ) as answer:
        body = bytearray()
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > MAX_ANSWER:
                raise aiohttp.ClientPayloadError("its answer is too long")
        return _Answer(answer.status, bytes(body))


def _token(answer: _Answer, who: str, *, known: bool) -> Token:
    """The token in an answer. Nothing of the answer itself gets into an error."""
    if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        advice = "check the user name and the password" if known else "it wants a credential"
        raise TokenRefused(f"{who} answered unauthorized, with status {answer.status}: {advice}.")
    if 300 <= answer.status < 400:
        raise TokenRefused(
            f"{who} redirects, with status {answer.status}, and redirects are not followed: "
            "let the registry name the service itself."
        )
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS or answer.status >= 500:
        raise TokenUnreachable(f"{who} answered with status {answer.status}.")
    if answer.status != HTTPStatus.OK:
        raise TokenRefused(f"{who} answered with status {answer.status}.")
    fields = _object(answer.body)
    value = fields.get("access_token") or fields.get("token")
    if not isinstance(value, str) or not value:
        raise TokenRefused(f"{who} answered without a token.")
    return Token(value, _expiry(fields.get("expires_in")), _issued(fields.get("issued_at")))


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _expiry(found: object) -> int:
    """Seconds; what is no time, or none at all, is the specification's minute."""
    if isinstance(found, (int, float)) and 1 <= found < LONGEST_SECONDS:
        return int(found)
    return EXPIRES_SECONDS


def _issued(found: object) -> int:
    try:
        moment = datetime.fromisoformat(found) if isinstance(found, str) else None
        return max(int(moment.timestamp()), 0) if moment else 0
    except (ValueError, OverflowError):
        return 0


def _address(host: str) -> tuple[str | None, int | None]:
    """Host and port of `host` or `host:port`. Raises ValueError for anything else."""
    url = URL(f"http://{host}")
    return url.host, url.port


def _loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _reason(error: Exception) -> str:
    """In the words that daemons use too, so that whoever reads texts knows both."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "no such host"
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "its answer breaks off or is too long"
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else type(error).__name__
