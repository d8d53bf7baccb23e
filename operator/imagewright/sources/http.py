"""A download as a context: an archive, or a bare Dockerfile."""

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp
from yarl import URL

from imagewright.api.reason import Reason
from imagewright.domain.plan import Http
from imagewright.ports import Error, Failed, Rejected, Unavailable
from imagewright.sources.archive import PIECE, Caps, Unpackable, is_archive
from imagewright.sources.credential import ANYBODY, Opener
from imagewright.sources.egress import Egress
from imagewright.sources.unpack import Unpacking, in_thread

REDIRECTS = 5
CONNECT_SECONDS, SILENT_SECONDS = 15, 60
DOCKERFILE = "Dockerfile"
DOCKERFILE_BYTES = 1 << 20
HEAD = 512
FIELD = "spec.source.http.url"
HTML = re.compile(rb"\s*(?:<!doctype\s+html|<html)", re.IGNORECASE)
MOVED = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class HttpFetcher:
    """Fetches over HTTP. A credential goes to the url's own scheme, host and port, nowhere else.

    Each download has connections of its own, so that builds share nothing.
    """

    egress: Egress = field(default_factory=Egress)
    caps: Caps = field(default_factory=Caps)

    async def prove(self, source: Http, opener: Opener | None) -> None:
        """See that the url still answers to this credential. Raises what `download` raises."""
        async with self._answer(source, opener):
            return

    async def download(self, source: Http, opener: Opener | None, place: Path) -> str:
        """Write what the url holds to the file `place`; returns its sha256 in hex.

        Raises Failed (SourceUnavailable) where it is not there or not what was asked for, Rejected
        (InvalidCredentials), Unavailable where the server or the network fails.
        """
        async with self._answer(source, opener) as answer:
            if answer.content_type == "text/html":
                raise _page(source)
            if (answer.content_length or 0) > self.caps.wire:
                raise self._too_large(source)
            digest = await self._stored(source, answer, place)
        if source.sha256 and digest != source.sha256:
            raise Failed(
                f"spec.source.http.sha256 is {source.sha256}, but what {_shown(source.url)} holds "
                f"has {digest}: it is not the file that was meant.",
                Reason.SOURCE_UNAVAILABLE,
            )
        return digest

    async def unpack(self, source: Http, download: Path, folder: Path) -> None:
        """Put the download's files into the folder. Raises Failed (SourceUnavailable)."""
        unpacking = Unpacking(folder, self.caps)
        try:
            async with asyncio.timeout(self.caps.seconds):
                await in_thread(unpacking, lambda: _unpack(unpacking, download, folder))
        except Unpackable as error:
            raise Failed(
                f"{FIELD} {_shown(source.url)}: {error}", Reason.SOURCE_UNAVAILABLE
            ) from error
        except TimeoutError as error:
            raise self._too_slow(source) from error

    async def _stored(self, source: Http, answer: aiohttp.ClientResponse, place: Path) -> str:
        digest, size = hashlib.sha256(), 0
        file = await asyncio.to_thread(place.open, "wb")
        try:
            async for data in answer.content.iter_chunked(PIECE * 4):
                size += len(data)
                if size > self.caps.wire:
                    raise self._too_large(source)
                digest.update(data)
                await asyncio.to_thread(file.write, data)
        finally:
            await asyncio.to_thread(file.close)
        return digest.hexdigest()

    @asynccontextmanager
    async def _answer(
        self, source: Http, opener: Opener | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(
            total=self.caps.seconds, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS
        )
        connector = aiohttp.TCPConnector(
            socket_factory=self.egress.open_socket, force_close=True, use_dns_cache=False
        )
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    timeout=timeout,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                ) as session,
                self._followed(session, source, opener) as answer,
            ):
                yield answer
        except TimeoutError as error:
            raise self._too_slow(source) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise _broken(source, error) from error

    @asynccontextmanager
    async def _followed(
        self, session: aiohttp.ClientSession, source: Http, opener: Opener | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer at the end of the redirects, which is a good one."""
        url = _parsed(source)
        own = url.origin()
        for _ in range(REDIRECTS + 1):
            self.egress.check_host(url.raw_host or "")
            headers = {"Accept-Encoding": "identity", "User-Agent": "imagewright"}
            if opener is not None and url.origin() == own:
                headers["Authorization"] = _header(opener, source)
            answer = await session.get(url, headers=headers, allow_redirects=False)
            async with answer:
                if answer.status not in MOVED:
                    _check(source, answer.status)
                    yield answer
                    return
                url = _next(source, url, answer.headers.get("Location", ""))
        raise Failed(
            f"{FIELD} {_shown(source.url)} redirects more than {REDIRECTS} times.",
            Reason.SOURCE_UNAVAILABLE,
        )

    def _too_large(self, source: Http) -> Failed:
        return Failed(
            f"{FIELD} {_shown(source.url)} holds more than {self.caps.wire >> 20} MiB, which is "
            "the limit.",
            Reason.SOURCE_UNAVAILABLE,
        )

    def _too_slow(self, source: Http) -> Unavailable:
        return Unavailable(
            f"{FIELD} {_shown(source.url)} was not fetched in time: its server is too slow, or "
            f"silent. {self.caps.seconds:g} seconds are the limit.",
            Reason.SOURCE_UNAVAILABLE,
        )


def _unpack(unpacking: Unpacking, download: Path, folder: Path) -> None:
    with download.open("rb") as file:
        head = file.read(HEAD)
        file.seek(0)
        if is_archive(head):
            unpacking.add(file)
            unpacking.finish()
            return
        text = file.read(DOCKERFILE_BYTES + 1)
    (folder / DOCKERFILE).write_bytes(_dockerfile(text))


def _dockerfile(text: bytes) -> bytes:
    """The text, where it may be a Dockerfile. Raises Unpackable."""
    if HTML.match(text):
        raise Unpackable("it holds a web page: name the file itself.")
    try:
        text.decode()
    except UnicodeDecodeError:
        text = b""
    if not text.strip() or b"\0" in text or len(text) > DOCKERFILE_BYTES:
        raise Unpackable(
            "it holds neither an archive nor a Dockerfile: pack the context as tar, tar.gz, "
            "tar.xz, tar.bz2 or tar.zst."
        )
    return text


def _parsed(source: Http) -> URL:
    try:
        url = URL(source.url, encoded=source.url.isascii())
        if url.scheme in {"http", "https"} and url.host and url.user is None:
            return url
    except ValueError:
        pass
    raise Rejected(
        f"{FIELD} is no URL that can be fetched: write https://host/path.",
        Reason.SOURCE_UNAVAILABLE,
    )


def _next(source: Http, url: URL, location: str) -> URL:
    """Where a redirect leads. What it says of a user is left out."""
    try:
        target = url.join(URL(location, encoded=location.isascii()))
        if location and target.host and target.scheme in {"http", "https"}:
            if url.scheme == "https" and target.scheme == "http":
                raise Failed(
                    f"{FIELD} {_shown(source.url)} redirects from https to http, where anybody "
                    "could change it: name a server that stays with https.",
                    Reason.SOURCE_UNAVAILABLE,
                )
            return target.with_user(None)
    except ValueError:
        pass
    raise Failed(
        f"{FIELD} {_shown(source.url)} redirects to what is no http or https URL.",
        Reason.SOURCE_UNAVAILABLE,
    )


def _header(opener: Opener, source: Http) -> str:
    if opener.key:
        raise Rejected(
            f"The Secret {source.secret} of spec.source.http.secretRef holds a key for ssh, which "
            "opens no URL: give it username and password, or token.",
            Reason.INVALID_CREDENTIALS,
        )
    if opener.token and not opener.username:
        return f"Bearer {opener.token}"
    pair = f"{opener.username or ANYBODY}:{opener.token or opener.password}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _check(source: Http, status: int) -> None:
    """Raises what an answer that is none means."""
    if status == HTTPStatus.OK:
        return
    where = f"{FIELD} {_shown(source.url)}"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        if source.secret:
            raise Rejected(
                f"{where} does not accept what the Secret {source.secret} holds (HTTP {status}).",
                Reason.INVALID_CREDENTIALS,
            )
        raise Failed(
            f"{where} asks who we are (HTTP {status}): name a Secret in "
            "spec.source.http.secretRef.",
            Reason.SOURCE_UNAVAILABLE,
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in {408, 425, 429}:
        raise Unavailable(f"{where} fails now (HTTP {status}).", Reason.SOURCE_UNAVAILABLE)
    raise Failed(f"{where} is not there (HTTP {status}).", Reason.SOURCE_UNAVAILABLE)


def _page(source: Http) -> Failed:
    return Failed(
        f"{FIELD} {_shown(source.url)} answers with a web page: name the file itself, or, where a "
        "login is asked for, a Secret in spec.source.http.secretRef.",
        Reason.SOURCE_UNAVAILABLE,
    )


def _broken(source: Http, error: Exception) -> Error:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return Unavailable(
            f"{FIELD} {_shown(source.url)}: its certificate is not accepted: {error}.",
            Reason.TLS_FAILED,
        )
    said = str(error) or type(error).__name__
    return Unavailable(
        f"{FIELD} {_shown(source.url)} cannot be fetched now: {said}.",
        Reason.SOURCE_UNAVAILABLE,
    )


def _shown(url: str) -> str:
    """A url as a message may show it: a query often holds a signature."""
    return url.partition("?")[0]
