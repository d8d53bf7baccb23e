"""ImageBuilds that are over, by the thousand: what a cluster holds after months of builds."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import aiohttp
import orjson

from devstack.etcd import Etcd
from imagewright.api.imagebuild import API_VERSION, GROUP, KIND, PLURAL, VERSION
from imagewright.kube.access import load_access

Body = dict[str, Any]
NAMESPACE = "archive"
"""Listed before `default`, so that whoever is new comes last in every list."""
AT_ONCE = 32
ROOT = f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}/{PLURAL}"
KEYS = f"/registry/{GROUP}/{PLURAL}/{NAMESPACE}/"
"""Where the API server keeps them."""
EMPTIED_SECONDS = 300.0
TOLERATED = (HTTPStatus.CONFLICT, HTTPStatus.GATEWAY_TIMEOUT)
"""What is there already; and a delete of ten thousand, too many for a server's minute."""


@dataclass(slots=True)
class Archive:
    """A namespace of finished builds that grows; `session` is an admin's."""

    session: aiohttp.ClientSession
    like: Body
    """A build that has succeeded: the spec and the status of all of them."""
    count: int = 0
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def grow(self, count: int) -> None:
        """Have so many of them, each made as a user and an operator would: two writes."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.count, count):
                tasks.create_task(self._finished(name_of(number)))
        self.count = max(self.count, count)

    async def versions(self) -> dict[str, str]:
        """The resourceVersion of each, by name."""
        items = (await self._ask("GET", ROOT))["items"]
        return {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in items}

    async def size(self) -> int:
        """Bytes of one of them as the API server sends it."""
        return len(orjson.dumps(await self._ask("GET", f"{ROOT}/{name_of(0)}")))

    async def empty(self) -> None:
        """Delete all of them, and wait until they are gone. Raises TimeoutError."""
        async with asyncio.timeout(EMPTIED_SECONDS):
            while await self.versions():
                await self._ask("DELETE", ROOT)
                await asyncio.sleep(0.2)
        self.count = 0

    async def _finished(self, name: str) -> None:
        async with self._slots:
            body = {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "archive"}},
                "spec": self.like["spec"],
            }
            await self._ask("POST", ROOT, body)
            patch = {"status": self.like["status"]}
            await self._ask("PATCH", f"{ROOT}/{name}/status", patch)

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Body:
        kind = "merge-patch+json" if method == "PATCH" else "json"
        headers = {"Content-Type": f"application/{kind}"}
        data = None if body is None else orjson.dumps(body)
        async with self.session.request(method, path, data=data, headers=headers) as answer:
            content: Body = orjson.loads(await answer.read())
        if answer.status >= HTTPStatus.BAD_REQUEST and answer.status not in TOLERATED:
            raise RuntimeError(f"{method} {path} was answered {answer.status}: {content}")
        return content


def name_of(number: int) -> str:
    """Of one of them."""
    return f"finished-{number:06}"


@asynccontextmanager
async def copies(finished: Archive, etcd: Etcd, count: int) -> AsyncIterator[None]:
    """So many of them while this is open, all but the first copied past the API server.

    That takes a second where `grow` takes a minute. Afterwards there are none.
    """
    await finished.grow(1)
    first: Body = orjson.loads(await etcd.value(KEYS + name_of(0)))
    try:
        await etcd.put({KEYS + name_of(one): _copy(first, one) for one in range(1, count)})
        async with asyncio.timeout(EMPTIED_SECONDS):
            # All that one transaction wrote has one version, and a list may show a part of it.
            while len(await finished.versions()) < count:
                await asyncio.sleep(0.1)
        yield
    finally:
        await etcd.delete(KEYS)


def _copy(first: Body, number: int) -> bytes:
    own = {"name": name_of(number), "uid": str(uuid.uuid4())}
    return orjson.dumps({**first, "metadata": {**first["metadata"], **own}})


@asynccontextmanager
async def archive(kubeconfig: str, like: Body) -> AsyncIterator[Archive]:
    """An empty archive of builds like this one; emptied again at the end."""
    access = await load_access(kubeconfig)
    async with aiohttp.ClientSession(
        base_url=access.server,
        connector=aiohttp.TCPConnector(ssl=await asyncio.to_thread(access.tls), limit=AT_ONCE),
        headers={"Authorization": await access.authorization(), "User-Agent": "imagewright"},
    ) as session:
        made = Archive(session, like)
        namespace = {"metadata": {"name": NAMESPACE}}
        await made._ask("POST", "/api/v1/namespaces", namespace)  # noqa: SLF001  # its maker
        await made.empty()
        try:
            yield made
        finally:
            await made.empty()
