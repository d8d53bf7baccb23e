"""The kind is not served for a while, as after an upgrade: the watch comes back by itself."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import devstack
from devstack.builds import Builds
from devstack.operator import start_operator
from tests.support.proxy import ApiProxy
from tests.support.specs import HELLO
from tests.support.waiting import becomes

SPEC: dict[str, Any] = {"source": {"inline": {"files": HELLO}}}


def unserved(request: web.Request) -> web.Response | None:
    """What a server answers that does not have the kind."""
    if "/apis/imagewright.dev" in request.path:
        return web.Response(status=404, text="404 page not found\n")
    if request.path == "/apis":
        return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})
    return None


def looks(proxy: ApiProxy) -> int:
    """How often it was asked what it serves."""
    return sum(one.path == "/apis/imagewright.dev/v1alpha1" for one in proxy.asked)


@pytest.mark.row("F29")
async def test_a_watch_that_began_again_while_the_kind_was_not_served_sees_it_when_it_is(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    async with ApiProxy(str(stack.operator_kubeconfig)) as proxy:
        config = tmp_path / "proxy.kubeconfig"
        config.write_text(proxy.kubeconfig())
        operator = await asyncio.to_thread(
            start_operator,
            tmp_path,
            config,
            namespaces=[builds.namespace],
            pools=[{"workers": [stack.buildkit], "slots": 1}],
        )
        try:
            await becomes(operator.readiness, "ok")
            proxy.rule = unserved
            proxy.close_watches()
            await becomes(lambda: operator.readiness() == "ok", False)
            # It looks what is served, finds nothing, and must look again.
            tries = looks(proxy)
            await becomes(lambda: looks(proxy) > tries + 2, True, seconds=10)
            proxy.rule = lambda _: None
            await builds.create("served", SPEC)
            assert (await builds.ended("served", seconds=15)).status["phase"] == "Succeeded"
            await becomes(operator.readiness, "ok", seconds=5)
        finally:
            await asyncio.to_thread(operator.stop)
