"""The workers of a pool are the endpoints of its Service, as far as they are to stay."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from imagewright.domain.autoscale import ordinal_of
from imagewright.pools.pool import Pool, Worker
from imagewright.ports import Endpoint

Opener = Callable[[str], Awaitable[Worker]]
"""Makes a worker of the daemon at an address."""


class Discovery:
    """Opens the workers that come and retires those that go.

    A worker has its Pod's name, so that a build's cache is looked for where it was even after the
    Pod came back at another address. `stateful_set` is that of Autoscaler, if there is one.
    """

    def __init__(self, pool: Pool, opener: Opener, stateful_set: str = "") -> None:
        self._pool, self._open, self._stateful_set = pool, opener, stateful_set
        self._found: frozenset[Endpoint] = frozenset()
        self._limit: int | None = None
        self._changed = asyncio.Event()

    def limit(self, workers: int) -> None:
        """Only so many Pods of the StatefulSet will stay: the others are retired at once."""
        self._limit = workers
        self._retire()

    async def run(self, found: AsyncIterator[frozenset[Endpoint]]) -> None:
        """Follow the sets of endpoints until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(found))
            group.create_task(self._add())

    async def _listen(self, found: AsyncIterator[frozenset[Endpoint]]) -> None:
        async for self._found in found:
            self._retire()

    def _retire(self) -> None:
        wanted = self._wanted()
        for worker in self._pool.workers:
            if wanted.get(worker.name) != worker.address:
                self._pool.retire(worker.name)
        self._changed.set()

    async def _add(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            known = {worker.name for worker in self._pool.workers}
            for name, address in self._wanted().items():
                if name not in known and not self._pool.recall(name, address):
                    await self._add_one(name, address)

    async def _add_one(self, name: str, address: str) -> None:
        worker = await self._open(address)
        worker.name, worker.address = name, address
        # It may have gone while it was opened.
        if self._wanted().get(name) == address:
            self._pool.add(worker)
        else:
            await worker.close()

    def _wanted(self) -> dict[str, str]:
        """The addresses by name."""
        return {one.name: f"tcp://{one.address}" for one in self._found if self._stays(one.name)}

    def _stays(self, name: str) -> bool:
        ordinal = ordinal_of(name, self._stateful_set)
        return self._limit is None or ordinal is None or ordinal < self._limit
