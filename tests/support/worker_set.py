"""A StatefulSet in memory, with what an API server does to its scale."""

import asyncio

from imagewright.ports import Conflict, Error, Scale


class FakeWorkerSet:
    """A ports.WorkerSet. `trouble` is raised, one at each call, before anything is done."""

    def __init__(self, replicas: int = 0) -> None:
        self.replicas = replicas
        self.version = 1
        self.calls: list[str] = []
        self.trouble: list[Error | None] = []
        self.held: dict[int, bool] = {}
        self._called = asyncio.Condition()

    async def scale(self) -> Scale:
        await self._call("get")
        return Scale(self.replicas, str(self.version))

    async def resize(self, seen: Scale, replicas: int) -> Scale:
        await self._call(f"put {replicas}")
        if seen.version != str(self.version):
            raise Conflict("The object has been modified.")
        self.set(replicas)
        return Scale(self.replicas, str(self.version))

    async def hold(self, ordinal: int) -> None:
        await self._call(f"hold {ordinal}")
        self.held[ordinal] = True

    async def release(self, ordinal: int) -> None:
        await self._call(f"release {ordinal}")
        self.held[ordinal] = False

    def set(self, replicas: int) -> None:
        """Write the number, as anybody may."""
        self.replicas, self.version = replicas, self.version + 1

    async def called(self, call: str, times: int = 1) -> None:
        """Wait until it was called so, so many times. Raises TimeoutError."""
        async with asyncio.timeout(1), self._called:
            await self._called.wait_for(lambda: self.calls.count(call) >= times)

    async def _call(self, call: str) -> None:
        async with self._called:
            self.calls.append(call)
            self._called.notify_all()
        if self.trouble and (trouble := self.trouble.pop(0)):
            raise trouble
