"""The requests that builds and their workers cost, over one keep-alive pool.

Bare aiohttp and orjson: the client library's typed calls cost 2.4 CPU-ms a build more, and a
thread for every request (docs/decisions/0004-bare-requests-for-the-hot-path.md).
"""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from aiohttp.connector import Connection

from imagewright.api.imagebuild import GROUP, PLURAL, VERSION
from imagewright.kube.access import load_access
from imagewright.ports import Body, Conflict, Error, Gone, Rejected, Unavailable

TIMEOUT = aiohttp.ClientTimeout(total=10, sock_connect=3)
SILENCE_SECONDS = 100.0
"""A watch that says nothing for so long is dead: bookmarks come about every minute."""
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_SECONDS)
AT_ONCE = 8
"""Requests under way; the others wait for their turn.

The pool takes the connection that was idle the longest, so that none is ever idle for long enough
to be closed: it keeps as many as were once needed, of 0.4 MB each (asyncio's TLS has a buffer of
256 KiB). Eight carry hundreds of requests a second.
"""
PAGE = 100
"""Objects in a page of a list: as many bodies are in memory at once."""
HEADERS = {"User-Agent": "imagewright", "Accept-Encoding": "identity"}
"""Not packed: packing a list of thousands costs the API server more than sending it."""
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Asks for an object without its content."""
PREFIX = f"/apis/{GROUP}/{VERSION}"


def unfenced() -> None:
    """For who leads always, or does not have to."""


class KubeClient:
    """The objects of one kind over HTTP; a context manager.

    `namespaces` empty means all of them; a kind that is in no namespace has the empty one. `fence`
    raises Fenced where nothing may be written: every write asks it when it leaves, and once more
    when its answer is there, since the process may have slept between the two.
    """

    def __init__(
        self,
        kubeconfig: str = "",
        namespaces: tuple[str, ...] = (),
        plural: str = PLURAL,
        fence: Callable[[], None] = unfenced,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._namespaces = namespaces
        self._plural = plural
        self._fence = fence
        self._silence = Silence()

    async def __aenter__(self) -> Self:
        self._access = await load_access(self._kubeconfig)
        tls = await asyncio.to_thread(self._access.tls)
        self._session = _session(tls, self._fence, AT_ONCE)
        # A watch has its connection for as long as it lives, and takes no turn from the others.
        self._watches = _session(tls, self._fence, 0)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        await self._session.close()
        await self._watches.close()

    async def list_objects(self) -> AsyncIterator[Body]:
        """Every object in view, page by page."""
        for namespace in self._namespaces or ("",):
            async for page in self.pages(self._path(namespace), {}):
                for body in page["items"]:
                    yield body

    async def pages(self, path: str, params: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """A list, in pages of 100 objects."""
        token = ""
        while True:
            more = {"continue": token} if token else {}
            query = {**params, "limit": str(PAGE), **more}
            page = await self._ask(Call("GET", path, params=query))
            yield page
            token = page["metadata"].get("continue", "")
            if not token:
                break

    async def watch(
        self, path: str, params: Mapping[str, str]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a watch, until the server ends it: it may end within one, which is lost.

        Raises Unavailable where nobody answers, the connection breaks, or nothing comes for 100 s.
        """
        url, request = self._access.server + path, f"GET {path} (watch)"
        headers, query = await self._who(), {**params, "watch": "1"}
        try:
            async with self._watches.get(
                url, params=query, headers=headers, timeout=WATCH_TIMEOUT
            ) as answer:
                if answer.status >= HTTPStatus.BAD_REQUEST:
                    raise translate(answer.status, request, await answer.read())
                try:
                    async for line in _lines(answer.content):
                        yield _json(line, request)
                finally:
                    _hang_up(answer)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"The API server broke off {request}: {error!r}.") from error

    async def get(self, path: str) -> dict[str, Any]:
        """The object at that path. Raises Gone."""
        return await self._ask(Call("GET", path))

    async def version(self, path: str) -> str:
        """The version of the object at that path, empty where there is none; not its content."""
        try:
            found = await self._ask(Call("GET", path, accept=METADATA))
        except Gone:
            return ""
        return str(found["metadata"]["resourceVersion"])

    async def get_object(self, namespace: str, name: str) -> Body:
        """The object. Raises Gone."""
        return await self._ask(Call("GET", self._path(namespace, name)))

    async def create(self, path: str, body: Body) -> dict[str, Any]:
        """Add the object to those at that path, and return it. Raises Conflict."""
        return await self._ask(Call("POST", path, body))

    async def patch(self, path: str, patch: Body) -> dict[str, Any]:
        """Merge `patch` into the object at that path, and return it. Raises Conflict, Gone."""
        return await self._ask(Call("PATCH", path, patch))

    async def patch_status(self, namespace: str, name: str, patch: Body) -> Body:
        """Merge `patch` into the object by its status subresource. Raises Conflict, Gone."""
        return await self._ask(Call("PATCH", f"{self._path(namespace, name)}/status", patch))

    async def delete_object(self, namespace: str, name: str, uid: str) -> None:
        """Delete this very object and no namesake of it; one that is gone already is fine."""
        body = {"preconditions": {"uid": uid}}
        try:
            await self._ask(Call("DELETE", self._path(namespace, name), body))
        except Conflict:
            return

    def _path(self, namespace: str, name: str = "") -> str:
        space = f"/namespaces/{namespace}" if namespace else ""
        return f"{PREFIX}{space}/{self._plural}" + (f"/{name}" if name else "")

    async def _ask(self, call: "Call") -> dict[str, Any]:
        """One request; an expired credential is read again, once."""
        request = f"{call.method} {call.path}"
        self._silence.check(request)
        answer = await self._send(call)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            await self._who(anew=True)
            answer = await self._send(call)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            error = translate(answer.status, request, answer.content)
            if isinstance(error, Unavailable) and answer.after:
                self._silence.keep(request, answer.after)
                error.after = answer.after
            raise error
        return _json(answer.content, request)

    async def _who(self, *, anew: bool = False) -> dict[str, str]:
        """The header that says who asks. Raises NoAccess, which is Unavailable."""
        if anew:
            self._access = await load_access(self._kubeconfig)
        return {"Authorization": await self._access.authorization()}

    async def _send(self, call: "Call") -> "Answer":
        headers = {**call.headers(), **await self._who()}
        data = None if call.body is None else orjson.dumps(call.body)
        url = self._access.server + call.path
        try:
            async with self._session.request(
                call.method, url, data=data, params=call.params, headers=headers
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(
                f"The API server did not answer {call.method} {call.path}: {error!r}."
            ) from error
        if call.method != "GET":
            self._fence()
        return Answer(response.status, content, seconds_of(response.headers.get("Retry-After")))


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked; `accept` is the form of the answer, where it is not the usual one."""

    method: str
    path: str
    body: Body | None = None
    params: Mapping[str, str] | None = None
    accept: str = ""

    def headers(self) -> dict[str, str]:
        """Those that say what is sent, and what is wanted."""
        headers = {"Accept": self.accept} if self.accept else {}
        if self.body is not None:
            merge = "merge-patch+json" if self.method == "PATCH" else "json"
            headers["Content-Type"] = f"application/{merge}"
        return headers


@dataclass(frozen=True, slots=True)
class Answer:
    """What came; `after` are the seconds for which the same must not be asked again."""

    status: int
    content: bytes
    after: float


class Silence:
    """Requests that the server does not want to see before their time (RFC 9110, 10.2.3)."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def keep(self, request: str, seconds: float) -> None:
        """Do not send it for so long."""
        now = time.monotonic()
        # What has passed goes, so that there are only as many as are kept now.
        self._until = {one: until for one, until in self._until.items() if until > now}
        self._until[request] = now + seconds

    def check(self, request: str) -> None:
        """Raises Unavailable where its time has not come."""
        left = self._until.get(request, 0.0) - time.monotonic()
        if left > 0:
            error = Unavailable(f"The API server wants {request} in {left:.1f} s, and no sooner.")
            error.after = left
            raise error


def _hang_up(answer: aiohttp.ClientResponse) -> None:
    """Without TLS's goodbyes: a server in the middle of an answer may not say its own."""
    connection = answer.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


def seconds_of(value: str | None) -> float:
    """A Retry-After of the API server, which is in seconds; 0 where there is none."""
    return float(value) if value is not None and value.isdecimal() else 0.0


def _json(content: bytes, request: str) -> dict[str, Any]:
    try:
        found = orjson.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        start = content[:200].decode(errors="replace")
        raise Unavailable(f"What answered {request} is no API server: {start}")
    return found


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The whole lines. aiohttp's own are bounded, and an object may be longer than its bound."""
    rest = bytearray()
    async for some in stream.iter_any():
        *lines, tail = some.split(b"\n")
        for line in lines:
            yield bytes(rest + line)
            rest.clear()
        rest += tail


def translate(status: int, request: str, content: bytes) -> Error:
    """What a failed request means, by the class of its status."""
    try:
        told = orjson.loads(content)
        said, named = str(told.get("message", "")), bool((told.get("details") or {}).get("name"))
    except (ValueError, AttributeError):
        said, named = content[:200].decode(errors="replace"), False
    message = f"The API server answered {request} with {status}: {said}"
    if status == HTTPStatus.NOT_FOUND:
        # One that names nothing says that the kind is not served: as a server that has just
        # started does, and that must not look as if all objects were gone.
        return Gone(message) if named else Unavailable(message)
    if status == HTTPStatus.CONFLICT:
        return Conflict(message)
    retried = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
    denied = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    server = HTTPStatus.INTERNAL_SERVER_ERROR
    # A denial passes when the role is given back; it is no fault of the object.
    if status in retried or status in denied or status >= server:
        return Unavailable(message)
    return Rejected(message)


def _session(tls: ssl.SSLContext, fence: Callable[[], None], limit: int) -> aiohttp.ClientSession:
    class Request(aiohttp.ClientRequest):
        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            # Here it has its connection, for which it may have waited long.
            if self.method != "GET":
                fence()
            return await super().send(conn)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls, limit=limit, keepalive_timeout=60),
        timeout=TIMEOUT,
        headers=HEADERS,
        request_class=Request,
    )
