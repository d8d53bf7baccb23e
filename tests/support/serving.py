"""Web servers of a test's own, in which one handler answers everything; and proxies among them."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LARGEST = 1 << 30
"""Bytes of a body: a registry takes layers."""


async def runner_of(handler: Handler, **more: Any) -> web.AppRunner:
    """Not listening yet; `more` is AppRunner's. Its connections end with it, at once."""
    app = web.Application(client_max_size=LARGEST)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, **more)
    await runner.setup()
    return runner


async def serve(handler: Handler, **more: Any) -> tuple[web.AppRunner, str]:
    """One that listens, on a host and port of its own; the caller cleans it up."""
    runner = await runner_of(handler, **more)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"127.0.0.1:{runner.addresses[0][1]}"


def kubeconfig_of(url: str) -> str:
    """A kubeconfig that leads through a proxy; the proxy adds who asks."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "replaced"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
    )
