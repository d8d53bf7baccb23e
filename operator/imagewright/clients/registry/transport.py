"""Requests to one registry: scheme, TLS, who we are, and where it sends us.

What is shown of us is shown to the registry itself, never to where it redirects, and nothing goes
from https to http.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp
from yarl import URL

from imagewright.clients.registry.access import Access, Badge
from imagewright.clients.registry.errors import Refused, refusal, translate

CONNECT_SECONDS, READ_SECONDS, STORE_SECONDS = 10, 60, 600
"""For a connection, for the next bytes, and for the answer to what was sent whole.

Registries move a blob to its place, and read it once more, before they say that they have it.
"""
QUICK = aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
PATIENT = aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=STORE_SECONDS)
ERROR_BYTES = 64 << 10
HOPS = 5
"""Redirects of one request: one to storage is what registries do."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
HUB, HUB_HOST = "docker.io", "registry-1.docker.io"
_LOOPBACK = re.compile(r"^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])(?::\d+)?$")


@dataclass(frozen=True, slots=True)
class Request:
    """One request for a repository, which decides what is shown of us. Bodies can be sent again.

    A `stream` cannot.
    """

    method: str
    repository: str
    url: URL
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    stream: AsyncIterator[bytes] | None = field(default=None, repr=False)


class Transport:
    """Sends requests to the registry at `host`, which may carry a port. Opened by `session`."""

    def __init__(self, host: str, access: Access) -> None:
        self.host, self._access = host, access
        dialled = HUB_HOST if host == HUB else host
        scheme = "http" if self._is_plain(dialled) else "https"
        self.root = URL(f"{scheme}://{dialled}/v2/")
        self._badge = Badge(host, dialled, access)
        self._tls = access.authorities.get(dialled, access.tls)

    async def open(self) -> None:
        """Make ready; nothing is dialled yet."""
        # A netrc or a proxy of the environment must not get into this. Nothing is unpacked, so
        # what is counted and hashed is what was sent.
        connector = aiohttp.TCPConnector(
            ssl=self._tls or True, socket_factory=self._access.open_socket
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers={"User-Agent": "imagewright", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    @asynccontextmanager
    async def ask(
        self, request: Request, good: frozenset[int] = frozenset()
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request, if it is of the 2xx or in `good`. Raises RegistryError."""
        answer = await self._identified(request)
        try:
            if not (answer.ok and answer.status not in REDIRECTS) and answer.status not in good:
                body = await bounded(answer, ERROR_BYTES)
                what = f"{request.method} {self.host}{request.url.path}"
                raise refusal(answer.status, body, what)
            yield answer
        finally:
            # Whatever was not read is not waited for.
            answer.close()

    async def _identified(self, request: Request) -> aiohttp.ClientResponse:
        """The answer, where need be to a second try that shows what the first was asked for."""
        answer = await self._sent(request)
        # Only the registry itself may ask, and name who gives tokens; not where it sends us.
        own = answer.url.origin() == self.root.origin()
        if answer.status != HTTPStatus.UNAUTHORIZED or request.stream is not None or not own:
            return answer
        asked = answer.headers.getall("WWW-Authenticate", [])
        # The connection can be used again once all of the answer was read.
        await bounded(answer, ERROR_BYTES)
        answer.release()
        await self._badge.renew(request.repository, asked)
        return await self._sent(request)

    async def _sent(self, request: Request) -> aiohttp.ClientResponse:
        """The answer at the end of all redirects, which only questions follow."""
        url = request.url
        for _ in range(HOPS):
            answer = await self._dispatch(request, url)
            if request.method not in {"GET", "HEAD"} or answer.status not in REDIRECTS:
                return answer
            answer.close()
            url = self.location(answer)
        raise Refused(f"{self.host} redirects more than {HOPS} times")

    async def _dispatch(self, request: Request, url: URL) -> aiohttp.ClientResponse:
        headers = dict(request.headers)
        shown = self._badge.header(request.repository)
        if shown and url.origin() == self.root.origin():
            headers["Authorization"] = shown
        try:
            return await self._session.request(
                request.method,
                url,
                headers=headers,
                data=request.body if request.stream is None else request.stream,
                timeout=PATIENT if request.method in {"PUT", "PATCH"} else QUICK,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise translate(error, self.host) from error

    def location(self, answer: aiohttp.ClientResponse) -> URL:
        """Where the registry says that it goes on. Raises Refused for what is no place to go."""
        told = answer.headers.get("Location", "")
        try:
            place = answer.url.join(URL(told, encoded=True)) if told else URL()
            address = place.authority
        except ValueError:
            place, address = URL(), ""
        if place.scheme not in {"http", "https"} or not place.host:
            raise Refused(f"{self.host} does not say where to go on")
        if place.scheme == "https" or (self.root.scheme == "http" and self._is_plain(address)):
            return place
        if self.root.scheme == "https" and place.host == self.root.host:
            # A registry behind a proxy that ends TLS may not know that it is spoken to over TLS.
            return self.root.origin().join(place.relative())
        raise Refused(f"{self.host} sends us to plain http, {place.origin()}: allow it by name")

    def _is_plain(self, address: str) -> bool:
        local = bool(_LOOPBACK.match(address)) and address not in self._access.authorities
        return local or address in self._access.plain


async def bounded(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """All of an answer. Raises Refused for one that is longer; the wire's errors as others do."""
    content = bytearray()
    try:
        while piece := await answer.content.read(most + 1 - len(content)):
            content += piece
    except (aiohttp.ClientError, OSError) as error:
        raise translate(error, answer.url.host or "") from error
    if len(content) > most:
        raise Refused(f"{answer.url.host} sent more than {most >> 10} KiB where less is usual")
    return bytes(content)
