"""Whether the worker of a build that says nothing is still there.

A step may be silent for an hour, and a build that waits for a stopped daemon is silent too. So
silence alone ends nothing: the worker is asked, and a worker that answers has not stalled. That
holds for every kind of worker, since it needs no more than the question that its pool asks too.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from imagewright.api.reason import Reason
from imagewright.pools.pool import Worker
from imagewright.ports import Error, Unavailable

log = structlog.get_logger("stall")
STALL_SECONDS = 120.0
"""How long a build says nothing before its worker is asked."""
ANSWER_SECONDS = 10.0
"""How long the answer may take."""
PARTING_SECONDS = 4.0
"""How long work that was cancelled may take to end. Then its slot is given back, unless the worker
answers when it is asked; it is asked again after as long."""
ResultT = TypeVar("ResultT")


class Attendant:
    """Attends to one piece of work on a worker, and is told of every sign of life by `beat`."""

    def __init__(self, worker: Worker, seconds: float) -> None:
        self._worker, self._seconds = worker, seconds
        self._heard_at = asyncio.get_running_loop().time()
        self._gone = False

    def beat(self, *_: object) -> None:
        """Something was heard just now."""
        self._heard_at = asyncio.get_running_loop().time()

    async def attend(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """The result of the work. Raises Unavailable (Stalled) where nobody does it any more.

        Whichever way this ends, the work has ended, or was given PARTING_SECONDS to and the worker
        did not answer.
        """
        task = asyncio.create_task(work)
        try:
            while not task.done():
                await self._watch(task)
            return task.result()
        finally:
            await self._part(task)

    async def _watch(self, task: "asyncio.Task[ResultT]") -> None:
        """Wait until the work has ended, or has been silent for too long; then ask."""
        silent = asyncio.get_running_loop().time() - self._heard_at
        if silent < self._seconds:
            await asyncio.wait([task], timeout=self._seconds - silent)
            return
        heard_at = self._heard_at
        trouble = await self._trouble(ANSWER_SECONDS)
        if not trouble:
            self.beat()
        elif self._heard_at == heard_at and not task.done():
            self._gone = True
            raise Unavailable(
                f"The build said nothing for {silent:.0f} s, and its worker did not answer when "
                f"asked: {trouble}",
                Reason.STALLED,
            )

    async def _trouble(self, seconds: float) -> str:
        """Why the worker does not answer; empty where it does."""
        try:
            async with asyncio.timeout(seconds):
                await self._worker.probe()
        except TimeoutError:
            return f"no answer within {seconds:.0f} s."
        except Error as error:
            return error.message
        return ""

    async def _part(self, task: "asyncio.Task[ResultT]") -> None:
        if task.done():
            return
        task.cancel()
        await asyncio.wait([task], timeout=PARTING_SECONDS)
        # A worker that answers knows best whether it still builds: then its slot is not free.
        while not (task.done() or self._gone or await self._trouble(PARTING_SECONDS)):
            await asyncio.wait([task], timeout=PARTING_SECONDS)
        if not task.done():
            log.error("Work does not end though it was cancelled", worker=self._worker.name)
