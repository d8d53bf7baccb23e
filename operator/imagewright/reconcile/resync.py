"""What the watch may have missed: a list, now and then, and after every restart of the watch."""

import asyncio
from typing import Generic

import structlog

from imagewright.ports import Body, Cluster, Error
from imagewright.reconcile.store import ObjectT, Store

log = structlog.get_logger("resync")
AGAIN_SECONDS = 1.0
"""After a list that failed."""


class Resync(Generic[ObjectT]):
    """Lists all objects of a kind every so many seconds, and whenever it is asked to."""

    def __init__(self, cluster: Cluster, store: Store[ObjectT], seconds: float) -> None:
        self._cluster, self._store, self._seconds = cluster, store, seconds
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """List soon: the watch was away."""
        self._asked.set()

    def anew(self) -> None:
        """Look at all that is known, and list soon: who followed only now begins to act."""
        self._store.wake_all()
        self.ask()

    async def run(self) -> None:
        """List until cancelled."""
        while True:
            try:
                await asyncio.wait_for(self._asked.wait(), self._seconds)
            except TimeoutError:
                log.debug("Listing in turn")
            self._asked.clear()
            try:
                await self.once()
            except Error as error:
                log.warning("A list failed", why=error.message)
                # Whoever asked still waits for it.
                pause = max(AGAIN_SECONDS, error.after)
                asyncio.get_running_loop().call_later(pause, self._asked.set)

    def _see(self, body: Body) -> None:
        try:
            self._store.see(body)
        except Exception:
            # One odd object must neither hide the others nor end the process.
            log.exception("A listed object was not taken in", uid=body["metadata"]["uid"])

    async def once(self) -> None:
        """See every object there is; what was known before the list and is not in it is gone."""
        known = self._store.uids()
        seen: set[str] = set()
        async for body in self._cluster.list_objects():
            seen.add(body["metadata"]["uid"])
            self._see(body)
        for uid in known - seen:
            log.info("An object vanished unseen", uid=uid)
            self._store.drop(uid)
