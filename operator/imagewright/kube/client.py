"""The four requests that a build costs or may cost, over one keep-alive pool.

Bare aiohttp and orjson: the client library's typed calls cost 2.4 CPU-ms a build more, and a
thread for every request (docs/decisions/0004-bare-requests-for-the-hot-path.md).
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from imagewright.api.imagebuild import GROUP, PLURAL, VERSION
from imagewright.kube.access import load_access
from imagewright.ports import Body, Conflict, Error, Gone, Rejected, Unavailable

TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
PAGE = 500
PREFIX = f"/apis/{GROUP}/{VERSION}"


class KubeClient:
    """The objects of one kind over HTTP; a context manager.

    `namespaces` empty means all of them; a kind that is in no namespace has the empty one.
    """

    def __init__(
        self, kubeconfig: str = "", namespaces: tuple[str, ...] = (), plural: str = PLURAL
    ) -> None:
        self._kubeconfig = kubeconfig
        self._namespaces = namespaces
        self._plural = plural

    async def __aenter__(self) -> Self:
        self._access = await load_access(self._kubeconfig)
        self._session = _session(await asyncio.to_thread(self._access.tls))
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def list_objects(self) -> AsyncIterator[Body]:
        """Every object in view, in pages of 500."""
        for namespace in self._namespaces or ("",):
            where = self._path(namespace)
            token = ""
            while True:
                query = {"limit": str(PAGE), **({"continue": token} if token else {})}
                page = await self._ask("GET", where, params=query)
                for body in page["items"]:
                    yield body
                token = page["metadata"].get("continue", "")
                if not token:
                    break

    async def get(self, path: str) -> dict[str, Any]:
        """The object at that path. Raises Gone."""
        return await self._ask("GET", path)

    async def get_object(self, namespace: str, name: str) -> Body:
        """The object. Raises Gone."""
        return await self._ask("GET", self._path(namespace, name))

    async def patch_status(self, namespace: str, name: str, patch: Body) -> Body:
        """Merge `patch` into the object by its status subresource. Raises Conflict, Gone."""
        return await self._ask("PATCH", f"{self._path(namespace, name)}/status", patch)

    async def delete_object(self, namespace: str, name: str, uid: str) -> None:
        """Delete this very object and no namesake of it; one that is gone already is fine."""
        try:
            await self._ask("DELETE", self._path(namespace, name), {"preconditions": {"uid": uid}})
        except Conflict:
            return

    def _path(self, namespace: str, name: str = "") -> str:
        space = f"/namespaces/{namespace}" if namespace else ""
        return f"{PREFIX}{space}/{self._plural}" + (f"/{name}" if name else "")

    async def _ask(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        *,
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """One request; an expired credential is read again, once."""
        status, content = await self._send(method, path, body, params)
        if status == HTTPStatus.UNAUTHORIZED:
            self._access = await load_access(self._kubeconfig)
            status, content = await self._send(method, path, body, params)
        if status >= HTTPStatus.BAD_REQUEST:
            raise translate(status, f"{method} {path}", content)
        found: dict[str, Any] = orjson.loads(content)
        return found

    async def _send(
        self, method: str, path: str, body: Body | None, params: Mapping[str, str] | None
    ) -> tuple[int, bytes]:
        headers = {"Authorization": await self._access.authorization()}
        if body is not None:
            merge = "merge-patch+json" if method == "PATCH" else "json"
            headers["Content-Type"] = f"application/{merge}"
        data = None if body is None else orjson.dumps(body)
        url = self._access.server + path
        try:
            async with self._session.request(
                method, url, data=data, params=params, headers=headers
            ) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(
                f"The API server did not answer {method} {path}: {error!r}."
            ) from error


def translate(status: int, request: str, content: bytes) -> Error:
    """What a failed request means, by the class of its status."""
    try:
        said = str(orjson.loads(content).get("message", ""))
    except (ValueError, AttributeError):
        said = content[:200].decode(errors="replace")
    message = f"The API server answered {request} with {status}: {said}"
    if status == HTTPStatus.NOT_FOUND:
        return Gone(message)
    if status == HTTPStatus.CONFLICT:
        return Conflict(message)
    retried = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
    denied = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    server = HTTPStatus.INTERNAL_SERVER_ERROR
    # A denial passes when the role is given back; it is no fault of the object.
    if status in retried or status in denied or status >= server:
        return Unavailable(message)
    return Rejected(message)


def _session(tls: ssl.SSLContext) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=tls, limit=64, keepalive_timeout=60)
    return aiohttp.ClientSession(
        connector=connector, timeout=TIMEOUT, headers={"User-Agent": "imagewright"}
    )
