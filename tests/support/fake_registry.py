"""A small registry in the test's own loop, which misbehaves where it is told to."""

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

USER, PASSWORD = "me", "s3cret"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class FakeRegistry:
    """Keeps blobs and manifests by repository. What it was asked is in `seen`.

    `auth` is what it asks for: nothing, `basic` or `bearer`. `instead` answers a method and the
    beginning of a path (`GET /v2/a/blobs/`) in its place.
    """

    auth: str = ""
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    instead: dict[str, Handler] = field(default_factory=dict)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path with its query, and the Authorization header of every request."""
    tokens: int = 0
    life_seconds: int = 300
    url: str = ""

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]

    @property
    def asked(self) -> list[str]:
        """Method and path of every request."""
        return [f"{method} {path}" for method, path, _ in self.seen]

    def shown_for(self, start: str) -> list[str]:
        """The Authorization headers of requests that begin so."""
        return [shown for method, path, shown in self.seen if f"{method} {path}".startswith(start)]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        shown = request.headers.get("Authorization", "")
        self.seen.append((request.method, request.path_qs, shown))
        for start, handler in self.instead.items():
            if f"{request.method} {request.path_qs}".startswith(start):
                return await handler(request)
        if request.path == "/token":
            self.tokens += 1
            return web.json_response({"token": f"t{self.tokens}", "expires_in": self.life_seconds})
        if refusal := self._refusal(shown):
            return refusal
        repository, _, rest = request.path.removeprefix("/v2/").rpartition("/")
        kind = repository.rpartition("/")[2]
        if kind == "uploads":
            return await self._upload(request, repository.removesuffix("/blobs/uploads"), rest)
        owner = repository.removesuffix(f"/{kind}")
        if kind == "blobs":
            found = self.blobs.get((owner, rest))
            return web.Response(status=404) if found is None else web.Response(body=found)
        return await self._manifest(request, owner, rest)

    def _refusal(self, shown: str) -> web.Response | None:
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if not self.auth or shown == (basic if self.auth == "basic" else f"Bearer t{self.tokens}"):
            return None
        asks = 'Basic realm="here"'
        if self.auth == "bearer":
            asks = f'Bearer realm="{self.url}/token",service="svc",scope="repository:a:pull"'
        return web.json_response({}, status=401, headers={"WWW-Authenticate": asks})

    async def _manifest(self, request: web.Request, owner: str, reference: str) -> web.Response:
        if request.method == "PUT":
            content = await request.read()
            for name in (reference, digest(content)):
                self.manifests[owner, name] = (request.content_type, content)
            return web.Response(status=201)
        media_type, content = self.manifests.get((owner, reference), ("", b""))
        if not content:
            errors = [{"code": "MANIFEST_UNKNOWN", "message": "no such thing"}]
            return web.json_response({"errors": errors}, status=404)
        return web.Response(body=content, content_type=media_type)

    async def _upload(self, request: web.Request, owner: str, name: str) -> web.Response:
        query = request.query
        if request.method == "POST":
            if (query.get("from", ""), query.get("mount", "")) in self.blobs:
                self.blobs[owner, query["mount"]] = self.blobs[query["from"], query["mount"]]
                return web.Response(status=201)
            name = f"u{len(self.uploads)}"
            self.uploads[name] = b""
        else:
            self.uploads[name] += await request.read()
        if request.method == "PUT":
            content = self.uploads[name]
            if digest(content) != query["digest"]:
                errors = [{"code": "DIGEST_INVALID", "message": "another"}]
                return web.json_response({"errors": errors}, status=400)
            self.blobs[owner, digest(content)] = content
            return web.Response(status=201)
        place = f"/v2/{owner}/blobs/uploads/{name}?_state=x%2Fy%3D"
        return web.Response(status=202, headers={"Location": place})


@asynccontextmanager
async def serve(
    fake: FakeRegistry, tls: ssl.SSLContext | None = None
) -> AsyncIterator[FakeRegistry]:
    """Serve it on a free port of loopback."""
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    scheme = "https" if tls else "http"
    fake.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


def answers(status: int = 200, body: bytes = b"", **headers: str) -> Handler:
    """A handler that always answers the same; a header's `_` is a `-`."""

    async def answer(request: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return answer


def breaks_off(content: bytes, length: int) -> Handler:
    """A handler that promises so many bytes, and cuts the line after `content`."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(length)})
        await response.prepare(request)
        await response.write(content)
        assert request.transport is not None
        request.transport.abort()
        await asyncio.sleep(0)
        return response

    return answer
