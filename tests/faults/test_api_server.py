"""Trouble with the API server: builds do not notice, nothing is lost, nothing is built twice."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import devstack
from bench.processes import appeared, find, vanished
from devstack.binaries import controllers
from devstack.builds import Builds, Refused, condition
from devstack.components import Place
from devstack.components import namespace_controller as controller_of_namespaces
from devstack.operator import OperatorProcess, start_operator
from devstack.server import Server, await_ready, free_port, start
from tests.support.own_api import OwnApi
from tests.support.proxy import ApiProxy
from tests.support.specs import HELLO, inline, numbers, sleeping
from tests.support.stack import Kubectl, say
from tests.support.waiting import becomes

_numbers = numbers(920)


@asynccontextmanager
async def operating(
    folder: Path, kubeconfig: Path, stack: devstack.Stack, **more: Any
) -> AsyncIterator[OperatorProcess]:
    """An operator on the stack's worker; it lives until the end."""
    settings = {"pools": [{"workers": [stack.buildkit], "slots": 4}], **more}
    running = await asyncio.to_thread(start_operator, folder / "operator", kubeconfig, **settings)
    try:
        yield running
        assert running.process.poll() is None, "The operator ended by itself."
    finally:
        await asyncio.to_thread(running.stop)


@asynccontextmanager
async def through_a_proxy(
    folder: Path, stack: devstack.Stack, builds: Builds, **more: Any
) -> AsyncIterator[tuple[ApiProxy, OperatorProcess]]:
    """An operator that speaks to the API server through a proxy, for one namespace."""
    async with ApiProxy(str(stack.operator_kubeconfig)) as proxy:
        config = folder / "proxy.kubeconfig"
        config.write_text(proxy.kubeconfig())
        more = {"namespaces": [builds.namespace], **more}
        async with operating(folder, config, stack, **more) as running:
            yield proxy, running


async def ends(builds: Builds, name: str, seconds: float = 30) -> tuple[str, int]:
    """The phase and the attempt that a build has at last, however often it must be asked for."""
    async with asyncio.timeout(seconds):
        while True:
            status = (await builds.get(name)).get("status", {})
            if condition({"status": status}, "Complete").get("status") == "True":
                return status["phase"], status["attempt"]
            await asyncio.sleep(0.05)


@pytest.mark.row("F20")
async def test_a_killed_api_server_stops_no_build_and_loses_no_result(
    stack: devstack.Stack, own_api: OwnApi, tmp_path: Path
) -> None:
    seconds = f"1.{next(_numbers)}"
    async with operating(tmp_path, own_api.operator, stack) as running:
        async with Builds(str(own_api.admin)) as builds:
            await builds.create("outlives", sleeping(stack, seconds))
            pid = await appeared(seconds)
        await asyncio.to_thread(own_api.kill)
        # It ends while there is nobody to tell.
        await vanished(pid)
        await asyncio.to_thread(own_api.restart)
        async with Builds(str(own_api.admin)) as builds:
            await builds.create("next", inline(HELLO))
            assert await ends(builds, "outlives") == ("Succeeded", 1)
            assert await ends(builds, "next") == ("Succeeded", 1)
    starts = [one for one in running.events() if one["event"] == "Build began"]
    assert sorted(one["name"] for one in starts) == ["next", "outlives"]


@pytest.mark.row("F21")
async def test_without_the_api_server_nothing_is_begun_and_what_ended_is_told_later(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    first, second = f"2.{next(_numbers)}", f"1.{next(_numbers)}"
    pool = {"workers": [stack.buildkit], "slots": 1}
    async with through_a_proxy(tmp_path, stack, builds, pools=[pool]) as (proxy, running):
        await builds.create("first", sleeping(stack, first))
        pid = await appeared(first)
        await builds.create("second", sleeping(stack, second))
        await builds.until("second", lambda seen: bool(seen.status.get("queue")))
        await proxy.cut()
        await vanished(pid)
        # The slot is free, and the second build's turn has come: its claim cannot be written.
        await becomes(
            lambda: any("does not take what" in one["event"] for one in running.events()), True
        )
        assert find(second) is None
        await proxy.mend()
        for name in ("first", "second"):
            ended = await builds.ended(name)
            assert (ended.status["phase"], ended.status["attempt"]) == ("Succeeded", 1)


@pytest.mark.row("F22")
async def test_who_is_told_to_wait_asks_no_sooner_and_others_do_not_wait(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    told = 2
    async with through_a_proxy(tmp_path, stack, builds) as (proxy, _):
        path = "/imagebuilds/slow/status"
        left = itertools.chain([True], itertools.repeat(False))

        def busy(request: web.Request) -> web.Response | None:
            if request.path.endswith(path) and next(left):
                return web.json_response(
                    {"message": "busy"}, status=429, headers={"Retry-After": str(told)}
                )
            return None

        proxy.rule = busy
        await builds.create("slow", inline(HELLO))
        await builds.create("other", inline(HELLO))
        other = await builds.ended("other")
        slow = await builds.ended("slow")
        assert other.at < slow.at
        assert slow.status["phase"] == "Succeeded"
        refused, *later = [one.at for one in proxy.asked if one.path.endswith(path)]
        assert min(later) - refused >= told


@pytest.mark.row("F24")
async def test_an_expired_watch_begins_anew_and_what_went_meanwhile_is_noticed(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    seconds = str(next(_numbers))
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    async with through_a_proxy(tmp_path, stack, builds) as (proxy, running):
        await builds.create("vanishes", sleeping(stack, seconds))
        await builds.create("stays", sleeping(stack, "1.53125"))
        pid = await appeared(seconds)
        proxy.lines = lambda line: [] if b'"DELETED"' in line else [line]
        await builds.delete("vanishes")
        await builds.gone("vanishes")
        await proxy.tell_watches(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
        await vanished(pid, seconds=5)
        assert (await builds.ended("stays")).status["attempt"] == 1
        await builds.create("next", inline(HELLO))
        assert (await builds.ended("next")).status["phase"] == "Succeeded"
        begun = [one["name"] for one in running.events() if one["event"] == "Build began"]
        assert sorted(begun) == ["next", "stays", "vanishes"]


def twice(line: bytes) -> Iterable[bytes]:
    """Every event comes again."""
    return [line, line]


def bookmarks_only(line: bytes) -> Iterable[bytes]:
    """Nothing but bookmarks comes."""
    return [line] if b'"BOOKMARK"' in line else []


class Reordered:
    """Of two events the later one comes first, for ever."""

    def __init__(self) -> None:
        self._kept: bytes | None = None

    def __call__(self, line: bytes) -> Iterable[bytes]:
        """Keep the first of two back."""
        if self._kept is None:
            self._kept = line
            return []
        kept, self._kept = self._kept, None
        return [line, kept]


class Torn:
    """Every fifth event comes by halves, and then the rest of it never."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def __call__(self, line: bytes) -> Iterable[bytes]:
        """A half, as a whole line."""
        return [line[: len(line) // 2] + b"\n"] if next(self._count) % 5 == 0 else [line]


@pytest.mark.row("F25")
@pytest.mark.parametrize(
    "lines",
    [twice, bookmarks_only, Reordered(), Torn()],
    ids=["events come twice", "only bookmarks come", "events change places", "a line is torn"],
)
async def test_whatever_a_watch_tells_no_build_is_missed_or_begun_twice(
    stack: devstack.Stack, builds: Builds, tmp_path: Path, lines: Callable[[bytes], Any]
) -> None:
    seconds, names = str(next(_numbers)), [f"build-{number}" for number in range(5)]
    more = {"resyncSeconds": 1}
    async with through_a_proxy(tmp_path, stack, builds, **more) as (proxy, running):
        proxy.lines = lines
        await builds.create("deleted", sleeping(stack, seconds))
        pid = await appeared(seconds)
        for name in names:
            await builds.create(name, inline(HELLO))
        for name in names:
            ended = await builds.ended(name)
            assert (ended.status["phase"], ended.status["attempt"]) == ("Succeeded", 1)
        await builds.delete("deleted")
        await vanished(pid, seconds=10)
        begun = [one["name"] for one in running.events() if one["event"] == "Build began"]
        assert sorted(begun) == [*names, "deleted"]


@pytest.mark.row("F25")
async def test_a_watch_that_is_closed_all_the_time_misses_nothing(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    names = [f"build-{number}" for number in range(8)]
    async with through_a_proxy(tmp_path, stack, builds) as (proxy, running):

        async def close() -> None:
            while True:
                await asyncio.sleep(0.1)
                proxy.close_watches()

        closing = asyncio.create_task(close())
        for name in names:
            await builds.create(name, sleeping(stack, "0.21875"))
        for name in names:
            ended = await builds.ended(name)
            assert (ended.status["phase"], ended.status["attempt"]) == ("Succeeded", 1)
        closing.cancel()
        begun = [one["name"] for one in running.events() if one["event"] == "Build began"]
        assert sorted(begun) == names


@pytest.mark.row("F27")
async def test_without_its_role_the_operator_is_not_ready_says_so_once_and_recovers(
    stack: devstack.Stack, own_api: OwnApi, tmp_path: Path
) -> None:
    bindings = own_api.kubectl("get", "clusterrolebindings", "-o", "name").splitlines()
    ours = [name for name in bindings if "imagewright" in name]
    roles = own_api.kubectl("get", *ours, "-o", "json")
    async with ApiProxy(str(own_api.operator)) as proxy:
        config = tmp_path / "proxy.kubeconfig"
        config.write_text(proxy.kubeconfig())
        async with operating(tmp_path, config, stack) as running:
            await becomes(running.readiness, "ok")
            own_api.kubectl("delete", *ours)
            proxy.close_watches()
            await becomes(lambda: "403" in running.readiness(), True)
            # Some more rounds, of which nothing more is said.
            tries = len(proxy.asked)
            await becomes(lambda: len(proxy.asked) > tries + 6, True)
            loud = [one for one in running.events() if one["level"] in {"warning", "error"}]
            assert len(loud) <= 2, loud
            path = tmp_path / "binding.json"
            path.write_text(roles)
            own_api.kubectl("create", f"--filename={path}")
            await becomes(running.readiness, "ok")
            async with Builds(str(own_api.admin)) as builds:
                await builds.create("allowed", inline(HELLO))
                assert await ends(builds, "allowed") == ("Succeeded", 1)


@pytest.mark.row("F28")
async def test_an_etcd_that_hangs_delays_a_result_and_nothing_is_built_twice(
    stack: devstack.Stack, own_api: OwnApi, tmp_path: Path
) -> None:
    seconds = f"1.{next(_numbers)}"
    async with (
        operating(tmp_path, own_api.operator, stack) as running,
        Builds(str(own_api.admin)) as builds,
    ):
        await builds.create("hangs", sleeping(stack, seconds))
        pid = await appeared(seconds)
        own_api.freeze()
        try:
            await vanished(pid)
            await becomes(
                lambda: any("does not take" in one["event"] for one in running.events()), True
            )
        finally:
            own_api.thaw()
        assert await ends(builds, "hangs") == ("Succeeded", 1)
    begun = [one["name"] for one in running.events() if one["event"] == "Build began"]
    assert begun == ["hangs"]


@pytest.mark.row("F29")
async def test_a_kind_that_is_removed_ends_its_builds_and_may_come_back(
    stack: devstack.Stack, own_api: OwnApi, tmp_path: Path
) -> None:
    seconds = str(next(_numbers))
    async with operating(tmp_path, own_api.operator, stack):
        async with Builds(str(own_api.admin)) as builds:
            await builds.create("removed", sleeping(stack, seconds))
            pid = await appeared(seconds)
        kind = own_api.kubectl("get", "crd", "imagebuilds.imagewright.dev", "-o", "json")
        own_api.kubectl("delete", "crd", "imagebuilds.imagewright.dev")
        await vanished(pid, seconds=5)
        path = tmp_path / "crd.json"
        path.write_text(json.dumps(fresh(json.loads(kind))))
        own_api.kubectl("create", f"--filename={path}")
        own_api.kubectl("wait", "--for=condition=Established", "crd", "--all")
        async with asyncio.timeout(15):
            while True:
                try:
                    async with Builds(str(own_api.admin)) as builds:
                        await builds.create("back", inline(HELLO))
                        assert await ends(builds, "back") == ("Succeeded", 1)
                        break
                except Refused:
                    # The API server takes a moment to serve what it has established.
                    await asyncio.sleep(0.2)


def fresh(body: dict[str, Any]) -> dict[str, Any]:
    """An object without what only the API server gives it."""
    meta = body["metadata"]
    named = {key: meta[key] for key in ("name", "labels", "annotations") if key in meta}
    return {**{key: body[key] for key in ("apiVersion", "kind", "spec")}, "metadata": named}


@pytest.mark.row("F61")
async def test_a_delete_with_no_operator_is_done_at_once_and_so_is_the_build(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    seconds = str(next(_numbers))
    own = {"namespaces": [builds.namespace], "pools": [{"workers": [stack.buildkit]}]}
    running = await asyncio.to_thread(
        start_operator, tmp_path / "killed", stack.operator_kubeconfig, **own
    )
    await builds.create("alone", sleeping(stack, seconds))
    pid = await appeared(seconds)
    await asyncio.to_thread(running.kill)
    await vanished(pid, seconds=2)
    await builds.delete("alone")
    await builds.gone("alone", seconds=1)
    async with operating(tmp_path, stack.operator_kubeconfig, stack, **own):
        await builds.create("next", inline(HELLO))
        assert (await builds.ended("next")).status["phase"] == "Succeeded"
        assert find(seconds) is None


@pytest.fixture
def namespace_controller(
    stack: devstack.Stack, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Iterator[Server]:
    """What empties a namespace that is deleted, in every cluster."""
    with capfd.disabled():
        program = controllers(lambda line: say(f"devstack: {line}"))
    folder = tmp_path / "controllers"
    folder.mkdir()
    command = controller_of_namespaces(Place(program, folder), stack.kubeconfig, free_port())
    server = await_ready(command, start(command, folder))
    yield server
    server.kill()


@pytest.mark.row("F62")
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("namespace_controller")
async def test_a_namespace_that_goes_takes_a_hundred_builds_with_it_in_silence(
    stack: devstack.Stack, builds: Builds, kubectl: Kubectl, tmp_path: Path
) -> None:
    names = [f"build-{number}" for number in range(100)]
    seconds = str(next(_numbers))
    async with through_a_proxy(tmp_path, stack, builds) as (proxy, running):
        for name in names:
            await builds.create(name, sleeping(stack, seconds))
        await becomes(lambda: running.metrics()["imagebuild_running"], 4.0)
        await becomes(lambda: running.metrics()[depth(builds)], 96.0)
        tries = len(proxy.asked)
        # A cluster takes five seconds before it begins to empty a namespace.
        await asyncio.to_thread(kubectl, "delete", "namespace", builds.namespace, "--wait=false")
        async with asyncio.timeout(10):
            for name in names:
                await builds.gone(name)
        await becomes(lambda: running.metrics()["imagebuild_running"], 0.0, seconds=5)
        await becomes(lambda: running.metrics()['imagebuild_slots_in_use{pool="default"}'], 0.0)
        refused = [one.path for one in proxy.asked[tries:] if one.status >= 400]
        assert len(refused) == len(set(refused)), "Something was asked for again."
        denied = [one.path for one in proxy.asked[tries:] if one.status == HTTPStatus.FORBIDDEN]
        # A build may begin while the others go; its Event is the one that shows the door is shut.
        assert denied in ([], [f"/apis/events.k8s.io/v1/namespaces/{builds.namespace}/events"])
        looked = ["get", "namespace", builds.namespace, "--ignore-not-found", "--output=name"]
        await becomes(lambda: kubectl(*looked), "")


def depth(builds: Builds) -> str:
    """The series of those that wait there."""
    return f'imagebuild_queue_depth{{namespace="{builds.namespace}",pool="default"}}'
