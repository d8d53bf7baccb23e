"""Who we are in one registry: what it asks for, and what is shown to it."""

import base64
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from imagewright.clients.registry.credential import Credential, Credentials
from imagewright.clients.registry.errors import Unauthorized, Unreachable
from imagewright.clients.registry.tokens import (
    Challenge,
    Token,
    TokenClient,
    TokenRefused,
    TokenUnreachable,
)

EARLY_SECONDS = 10
"""A token is not used in the last of its life: a request takes time, and clocks differ."""
_BEARER = re.compile(r"\bBearer\s+(.*)", re.IGNORECASE | re.DOTALL)
_BASIC = re.compile(r"\bBasic\b", re.IGNORECASE)
_PARAMETER = re.compile(r'([a-zA-Z_]+)=(?:"([^"]*)"|([^\s",]+))')


@dataclass(frozen=True, slots=True)
class Access:
    """Who we are: `credentials` knows it, `tokens` fetches what a Bearer challenge asks for.

    Hosts of `plain` are spoken to in plain http, as loopback is; all others over TLS, with `tls`
    where it is given. A host of `authorities` is spoken to over TLS with its own, on loopback too.
    There is no way from one to the other. `clock` is in seconds, and monotonic.
    """

    credentials: Credentials
    tokens: TokenClient
    plain: frozenset[str] = frozenset()
    tls: ssl.SSLContext | None = None
    authorities: Mapping[str, ssl.SSLContext] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    open_socket: Callable[[tuple[Any, ...]], socket.socket] | None = None
    """Makes the socket to an address (one of getaddrinfo's tuples), or raises."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """An Authorization header, and until when it is good."""

    header: str = field(repr=False)
    until: float


class Badge:
    """The Authorization headers for one registry's repositories, got when it asks for them.

    `host` is the registry as people name it, `dialled` as it is dialled.
    """

    def __init__(self, host: str, dialled: str, access: Access) -> None:
        self._host, self._dialled, self._access = host, dialled, access
        self._shown: dict[str, _Shown] = {}

    def header(self, repository: str) -> str:
        """What to show for a repository; empty where nothing was asked for yet, or it is old."""
        shown = self._shown.get(repository)
        return shown.header if shown and self._access.clock() < shown.until else ""

    async def renew(self, repository: str, asked: Iterable[str]) -> None:
        """Get what the WWW-Authenticate headers ask for. Raises Unauthorized, Unreachable.

        What the `credentials` raise is passed on.
        """
        known = await self._access.credentials(self._host)
        challenge = ", ".join(asked)
        if bearer := _BEARER.search(challenge):
            found = _PARAMETER.findall(bearer[1])
            parameters = {key.lower(): quoted or bare for key, quoted, bare in found}
            token = await self._token(repository, parameters, known)
            until = self._access.clock() + token.expires_seconds - EARLY_SECONDS
            self._shown[repository] = _Shown(f"Bearer {token.value}", until)
        elif _BASIC.search(challenge):
            self._shown[repository] = _Shown(self._basic(known), float("inf"))
        else:
            raise Unauthorized(
                f"{self._host} wants to know who we are in a way that we do not know: it asks for "
                f"{challenge[:100]!r}, and not for Bearer or Basic"
            )

    async def _token(
        self, repository: str, parameters: dict[str, str], known: Credential | None
    ) -> Token:
        scope = parameters.get("scope") or f"repository:{repository}:pull,push"
        realm, service = parameters.get("realm", ""), parameters.get("service", "")
        wanted = Challenge(self._dialled, realm, service, tuple(scope.split()))
        try:
            return await self._access.tokens.fetch(wanted, known)
        except TokenUnreachable as error:
            raise Unreachable(f"{error}".rstrip(".")) from error
        except TokenRefused as error:
            raise Unauthorized(f"{error}".rstrip(".")) from error

    def _basic(self, known: Credential | None) -> str:
        if known is None:
            raise Unauthorized(f"{self._host} wants a password, and there is none for it")
        if not known.username:
            raise Unauthorized(f"{self._host} wants a password, and what is there is a token")
        pair = f"{known.username}:{known.secret}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"
