"""/metrics, /healthz and /readyz."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from imagewright.metrics import Metrics

Handler = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def serve_ops(
    address: tuple[str, int], metrics: Metrics, ready: Callable[[], str]
) -> AsyncIterator[int]:
    """Serve while the context is open, on the yielded port (of use where port 0 was asked for).

    `ready` says why the operator is not ready, and nothing where it is.
    """
    app = web.Application()
    app.router.add_get("/metrics", _metrics_handler(metrics))
    app.router.add_get("/healthz", _health_handler)
    app.router.add_get("/readyz", _ready_handler(ready))
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, *address)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _metrics_handler(metrics: Metrics) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        metrics.tasks.set(len(asyncio.all_tasks()))
        text = generate_latest(metrics.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return handler


async def _health_handler(_: web.Request) -> web.Response:
    """An answer says that the main loop turns; a prober's timeout says when it does not."""
    return web.Response(text="ok\n")


def _ready_handler(ready: Callable[[], str]) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        why = ready()
        return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200)

    return handler
