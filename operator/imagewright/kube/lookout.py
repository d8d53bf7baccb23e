"""Looks out for changes of what builds wait for, such as Secrets that are not there yet.

The operator may get a Secret and not watch one (decision 14), so it has to ask. One question
serves all who wait for the same object, and there are never more questions a second than AT_MOST,
however many wait: where they wait for more objects than that, each is asked after less often.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog

from imagewright.ports import Error

log = structlog.get_logger("lookout")
EVERY_SECONDS = 1.0
"""Between two questions after one object, where there are no more than AT_MOST objects."""
AT_MOST = 50
"""Questions a second. 90 objects are so asked after every 1.8 s each, a thousand every 20 s."""


@dataclass(frozen=True, slots=True, eq=False)
class Wait:
    """Somebody who waits: the versions that were seen, by path, and who is to be told."""

    seen: Mapping[str, str]
    changed: Callable[[], None]


@dataclass(slots=True)
class Watched:
    """An object that somebody waits for; `due` is a time of the loop."""

    due: float
    waits: set[Wait] = field(default_factory=set)


class Lookout:
    """Tells who waits for objects that one of them has changed.

    `version` says which version of an object is there now, and the empty one where none is; what
    it raises is of no matter to anybody who waits: the object is asked after again in its turn.
    """

    def __init__(
        self,
        version: Callable[[str], Awaitable[str]],
        every: float = EVERY_SECONDS,
        at_most: float = AT_MOST,
    ) -> None:
        self._version, self._every, self._at_most = version, every, at_most
        self._watched: dict[str, Watched] = {}
        """By path; whose turn is next comes first."""
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, seen: Mapping[str, str], changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed`, once, when one of these is not in its version any more.

        Who calls the answer waits no longer.
        """
        wait = Wait(dict(seen), changed)
        due = asyncio.get_running_loop().time() + self._every
        for path in wait.seen:
            self._watched.setdefault(path, Watched(due)).waits.add(wait)
        if self._watched:
            self._some.set()
        return partial(self._drop, wait)

    async def run(self) -> None:
        """Ask, one question at a time, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            path, watched = next(iter(self._watched.items()))
            await asyncio.sleep(watched.due - loop.time())
            # Who waited for it may have gone meanwhile.
            if self._watched.get(path) is watched:
                await asyncio.gather(self._ask(path), asyncio.sleep(1 / self._at_most))

    async def _ask(self, path: str) -> None:
        try:
            version = await self._version(path)
        except Error as error:
            log.debug("An object that builds wait for cannot be asked after", why=error.message)
        except Exception:
            # One odd object must neither hide the others nor end the process.
            log.exception("An object that builds wait for was not understood", path=path)
        else:
            self._tell(path, version)
        watched = self._watched.pop(path, None)
        if watched is not None:
            watched.due = asyncio.get_running_loop().time() + self._every
            self._watched[path] = watched

    def _tell(self, path: str, version: str) -> None:
        waits = self._watched[path].waits if path in self._watched else set()
        for wait in [one for one in waits if one.seen[path] != version]:
            self._drop(wait)
            wait.changed()

    def _drop(self, wait: Wait) -> None:
        for path in wait.seen:
            watched = self._watched.get(path)
            if watched is None:
                continue
            watched.waits.discard(wait)
            if not watched.waits:
                del self._watched[path]
        if not self._watched:
            self._some.clear()
