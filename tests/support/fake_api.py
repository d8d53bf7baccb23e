"""An HTTP server that stands for the API server and answers what it is told to."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml
from aiohttp import web


class Answering(ABC):
    """Something at a port of loopback; `served` gives it one."""

    port = 0

    @abstractmethod
    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""

    def config(self, folder: Path, token: str) -> Path:
        """A kubeconfig that leads here."""
        path = folder / "kubeconfig"
        cluster = {"server": f"http://127.0.0.1:{self.port}"}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path


class Server(Answering):
    """Answers in turn what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.bodies: list[Any] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.asked.append(
            {
                "line": f"{request.method} {request.path_qs}",
                "kind": request.headers.get("Content-Type", ""),
                "wanted": request.headers.get("Accept", ""),
                "who": request.headers.get("Authorization", ""),
            }
        )
        self.bodies.append(yaml.safe_load(text) if text else None)
        status, body = self.answers.pop(0)
        return web.json_response(body, status=status)


ServerT = TypeVar("ServerT", bound=Answering)


@asynccontextmanager
async def served(server: ServerT) -> AsyncIterator[ServerT]:
    """The server, on a port of its own."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()
