"""The operator's own cache: trees that it fetched, kept between builds, within bounds."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from imagewright.api.reason import Reason
from imagewright.caches.shelf import TREE, Entry, Shelf, id_of
from imagewright.domain.estimate import Record, estimate
from imagewright.domain.prune import Policy, Reclaimed
from imagewright.ports import Unavailable

ResultT = TypeVar("ResultT")
Fill = Callable[[Path], Awaitable[None]]
"""Puts a source's files into an empty folder."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What stays when nobody prunes: so many bytes, and nothing unused for longer than `age`."""

    size: int = 10 << 30
    age: timedelta = timedelta(days=7)


@dataclass(slots=True)
class _Held:
    """An entry, when it was last used (seconds since the epoch), and by how many it is now."""

    entry: Entry
    used: float
    leases: int = 0


class SourceCache:
    """Trees by what they are, in one folder of this process's. Enter it before its first use.

    A tree is fetched once, however many builds ask for it at a time. It is in view only when it is
    whole, and stays while a build has it. What was used longest ago goes first.

    A tree is shared and must not be written to. That is not enforced by its modes: these are the
    source's own, and end up in images.
    """

    def __init__(
        self, folder: Path, limits: Limits, clock: Callable[[], float] = time.time
    ) -> None:
        self._shelf, self._limits, self._clock = Shelf(folder), limits, clock
        self._entries: dict[str, _Held] = {}
        self._fetching: dict[tuple[str, str], asyncio.Event] = {}
        self._chores: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Find what is there again. Raises Unavailable where the folder cannot be used."""
        for entry in await _whole(self._shelf.open):
            self._entries[entry.id] = _Held(entry, entry.used)
        self._tidy()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.settled()
        self._shelf.close()

    @asynccontextmanager
    async def lease(self, kind: str, name: str, fill: Fill) -> AsyncIterator[Path]:
        """The tree called `name`, of that kind (`source.git` ...), until the context is left.

        Where it is not there, `fill` fetches it; those who ask meanwhile wait for the first. What
        `fill` raises is raised here, and leaves nothing: the next one tries anew. Raises
        Unavailable where the disk fails.
        """
        held = await self._leased(kind, name, fill)
        try:
            yield held.entry.tree
        finally:
            held.leases -= 1
            held.used = self._clock()
            self._chore(self._shelf.touch, held.entry, held.used)
            self._tidy()

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """An empty folder that is gone when the context is left, or at the next start."""
        folder = await self._staged()
        try:
            yield folder
        finally:
            await _whole(lambda: self._shelf.discard(folder))

    async def usage(self) -> int:
        """Bytes that all trees take, in use or not."""
        return sum(held.entry.size for held in self._entries.values())

    async def prune(self, policy: Policy) -> Reclaimed:
        """Free what the policy lets go, by the rules of a BuildKit cache; what is in use stays."""
        narrowed = policy
        if policy.min_free_space:
            excess = policy.min_free_space - await asyncio.to_thread(self._shelf.free)
            used = await self.usage()
            limit = policy.max_used_space
            if excess <= 0 and not (limit or policy.reserved_space):
                return Reclaimed()
            if excess > 0:
                limit = max(min(limit or used, used - excess), 0)
            narrowed = replace(policy, max_used_space=limit, min_free_space=0)
        records = [_record(held) for held in self._entries.values()]
        going = estimate(records, narrowed, datetime.fromtimestamp(self._clock(), UTC))
        if not policy.dry_run:
            await _whole(self._removing(going.ids))
        return going

    async def settled(self) -> None:
        """Wait until all that was put off, such as deleting what is too old, is done."""
        while self._chores:
            await asyncio.wait(self._chores)

    async def _leased(self, kind: str, name: str, fill: Fill) -> _Held:
        key = (kind, name)
        while True:
            held = self._entries.get(id_of(kind, name))
            if held is not None:
                held.leases += 1
                return held
            other = self._fetching.get(key)
            if other is not None:
                await other.wait()
                continue
            over = self._fetching[key] = asyncio.Event()
            try:
                await self._fetch(kind, name, fill)
            finally:
                del self._fetching[key]
                over.set()

    async def _fetch(self, kind: str, name: str, fill: Fill) -> None:
        staged = await self._staged()
        try:
            tree = staged / TREE
            await asyncio.to_thread(tree.mkdir)
            await fill(tree)
            # Also where we are cancelled in this moment: it is whole, and known then.
            await _whole(
                lambda: self._shelf.place(staged, kind, name, self._clock()), self._register
            )
        except OSError as error:
            await _whole(lambda: self._shelf.discard(staged))
            raise Unavailable(
                f"The source cannot be stored: {error.strerror or error}.", Reason.DISK_FULL
            ) from error
        except BaseException:
            await _whole(lambda: self._shelf.discard(staged))
            raise

    async def _staged(self) -> Path:
        try:
            return await _whole(self._shelf.stage)
        except OSError as error:
            raise Unavailable(
                f"The source cannot be stored: {error.strerror or error}.", Reason.DISK_FULL
            ) from error

    def _register(self, entry: Entry) -> None:
        self._entries[entry.id] = _Held(entry, entry.used)

    def _tidy(self) -> None:
        """Let go what is over the limits, without waiting for it."""
        oldest = self._clock() - self._limits.age.total_seconds()
        used = sum(held.entry.size for held in self._entries.values())
        going = []
        for held in sorted(self._entries.values(), key=lambda held: held.used):
            if not held.leases and (used > self._limits.size or held.used < oldest):
                used -= held.entry.size
                going.append(held.entry.id)
        if going:
            self._chore(self._removing(going))

    def _removing(self, ids: Iterable[str]) -> Callable[[], None]:
        """What deletes the entries, which are forgotten at once."""
        entries = [self._entries.pop(one).entry for one in ids]
        return lambda: self._shelf.remove(entries)

    def _chore(self, work: Callable[..., None], *arguments: object) -> None:
        task = asyncio.create_task(asyncio.to_thread(work, *arguments))
        self._chores.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._chores.discard(task)
        # What could not be deleted or noted now is found again at the next start.
        if not task.cancelled():
            task.exception()


def _record(held: _Held) -> Record:
    return Record(
        id=held.entry.id,
        size=held.entry.size,
        type=held.entry.kind,
        description=held.entry.name,
        in_use=held.leases > 0,
        last_used=held.used,
    )


async def _whole(
    work: Callable[[], ResultT], then: Callable[[ResultT], None] = lambda _: None
) -> ResultT:
    """Do it in a thread, to its end: a cancel meanwhile is obeyed after that, and after `then`."""
    task = asyncio.create_task(asyncio.to_thread(work))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    then(result)
    if cancelled is not None:
        raise cancelled
    return result
