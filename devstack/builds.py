"""ImageBuilds as a user's program sees them: created, changed, deleted, and watched.

One watch stream feeds everything; whoever waits is woken by events, and a wait that fails says
what was seen instead. Times are of the monotonic clock, in seconds.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from imagewright.api.imagebuild import API_VERSION, GROUP, KIND, PLURAL, VERSION
from imagewright.kube.access import load_access

Body = dict[str, Any]
CLOSING_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Seen:
    """An event, and when it arrived."""

    at: float
    type: str
    body: Body

    @property
    def status(self) -> Body:
        """The object's status."""
        found: Body = self.body.get("status", {})
        return found


class Refused(Exception):
    """The API server refused a request; `status` is its code, the text its sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Builds:
    """The ImageBuilds of one namespace; a context manager that watches while it is open."""

    kind = KIND

    def __init__(self, kubeconfig: str, namespace: str = "default") -> None:
        self._kubeconfig = kubeconfig
        self.namespace = namespace
        self.history: dict[str, list[Seen]] = {}
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        access = await load_access(self._kubeconfig)
        self._session = aiohttp.ClientSession(
            base_url=access.server,
            connector=aiohttp.TCPConnector(ssl=await asyncio.to_thread(access.tls), limit=0),
            headers={"Authorization": await access.authorization()},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )
        try:
            listed = await self._ask("GET", self._path())
        except BaseException:
            await self._session.close()
            raise
        self._watching = asyncio.create_task(self._watch(listed["metadata"]["resourceVersion"]))
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self._watching.cancel()
        await asyncio.wait([self._watching])
        await self._session.close()
        # aiohttp leaves the end of TLS connections to later turns of the loop.
        await asyncio.sleep(CLOSING_SECONDS)

    async def create(self, name: str, spec: Mapping[str, Any], **metadata: Any) -> Body:
        """Create a build. Raises Refused."""
        body = {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "metadata": {"name": name, **metadata},
            "spec": spec,
        }
        return await self._ask("POST", self._path(), body)

    async def get(self, name: str) -> Body:
        """The build. Raises Refused with status 404 where it is gone."""
        return await self._ask("GET", self._path(name))

    async def patch(self, name: str, patch: Mapping[str, Any]) -> Body:
        """Merge `patch` into the build."""
        return await self._ask("PATCH", self._path(name), patch)

    async def delete(self, name: str) -> None:
        """Delete the build."""
        await self._ask("DELETE", self._path(name))

    async def until(self, name: str, right: Callable[[Seen], bool], seconds: float = 30) -> Seen:
        """The first event of this build that is `right`, past ones included.

        Raises AssertionError, with what was seen instead, after so many seconds.
        """
        try:
            async with asyncio.timeout(seconds), self._news:
                while True:
                    for seen in self.history.get(name, ()):
                        if right(seen):
                            return seen
                    await self._news.wait()
        except TimeoutError:
            told = [(one.type, one.status) for one in self.history.get(name, ())][-3:]
            raise AssertionError(
                f"{name} was not seen as wanted within {seconds} s; the last events were {told}."
            ) from None

    async def ended(self, name: str, generation: int = 1, seconds: float = 60) -> Seen:
        """The event that says how this generation of the build ended."""
        return await self.until(
            name,
            lambda seen: (
                seen.status.get("observedGeneration", -1) >= generation
                and condition(seen.body, "Complete").get("status") == "True"
            ),
            seconds,
        )

    async def phase(self, name: str, phase: str, seconds: float = 30) -> Seen:
        """The first event with this phase."""
        return await self.until(name, lambda seen: seen.status.get("phase") == phase, seconds)

    async def gone(self, name: str, seconds: float = 30) -> Seen:
        """The event that says the build is gone."""
        return await self.until(name, lambda seen: seen.type == "DELETED", seconds)

    def phases(self, name: str) -> list[str]:
        """The phases that were seen, in order, each change once."""
        found: list[str] = []
        for seen in self.history.get(name, ()):
            phase = seen.status.get("phase")
            if phase and found[-1:] != [phase]:
                found.append(phase)
        return found

    def worker(self, name: str) -> str:
        """The worker that the build was last given to. Raises LookupError where none was seen."""
        claims = [one.status["claim"] for one in self.history[name] if one.status.get("claim")]
        return str(claims[-1]["worker"])

    def _path(self, name: str = "") -> str:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}"
        return f"{path}/{name}" if name else path

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Body:
        kind = "merge-patch+json" if method == "PATCH" else "json"
        headers = {"Content-Type": f"application/{kind}"}
        data = None if body is None else orjson.dumps(body)
        async with self._session.request(method, path, data=data, headers=headers) as answer:
            content: Body = orjson.loads(await answer.read())
        if answer.status >= 400:
            raise Refused(answer.status, str(content.get("message", content)))
        return content

    async def _watch(self, version: str) -> None:
        self._version = version
        while True:
            # The API server ends a watch after half an hour or more.
            await self._watch_once()

    async def _watch_once(self) -> None:
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": self._version}
        async with self._session.get(self._path(), params=query, read_bufsize=1 << 20) as answer:
            rest = b""
            async for chunk in answer.content.iter_any():
                now = time.monotonic()
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = orjson.loads(line)
                    self._take(Seen(now, event["type"], event["object"]))
                async with self._news:
                    self._news.notify_all()

    def _take(self, seen: Seen) -> None:
        self._version = seen.body["metadata"]["resourceVersion"]
        if seen.type == "BOOKMARK":
            return
        self.history.setdefault(seen.body["metadata"]["name"], []).append(seen)


def condition(body: Mapping[str, Any], kind: str) -> Body:
    """The condition of this type; empty where there is none."""
    conditions = body.get("status", {}).get("conditions", ())
    return next((one for one in conditions if one["type"] == kind), {})
