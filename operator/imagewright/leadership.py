"""Whether this process acts: always where it is alone, else while it holds the Lease."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from imagewright.kube.client import KubeClient
from imagewright.kube.lease import Candidacy, Elector
from imagewright.metrics import Metrics
from imagewright.settings import Settings


class LostError(Exception):
    """The Lease went while this process led; it has stopped all it did, and must end."""


class Leader(Protocol):
    """What the parts of an operator know of its leadership."""

    led: asyncio.Event
    """Set once this process leads."""
    lost: str
    """Why it does not any more; empty before. It never leads again."""
    on_loss: Callable[[], None]
    """Called at that moment; must not block."""

    def leads(self) -> bool:
        """Whether it may act now."""
        ...

    def fence(self) -> None:
        """Raises Fenced where it may not."""
        ...


class Alone:
    """Nobody else is there: leads from its start to its end."""

    def __init__(self) -> None:
        self.led, self.lost = asyncio.Event(), ""
        self.led.set()
        self.on_loss: Callable[[], None] = lambda: None

    def leads(self) -> bool:
        """Always."""
        return True

    def fence(self) -> None:
        """Lets all through."""


@asynccontextmanager
async def leadership(settings: Settings, holder: str, metrics: Metrics) -> AsyncIterator[Leader]:
    """Stand for the Lease while the context is open; it is given back at its end, where held."""
    own = settings.lease
    if own is None:
        metrics.leader.set(1)
        yield Alone()
        return
    # Connections of its own: a renewal must not wait for those of a thousand builds.
    async with KubeClient(settings.kubeconfig) as client:
        elector = Elector(client, Candidacy(own.namespace, own.name, holder, own.seconds), metrics)
        standing = asyncio.create_task(elector.run(), name="lease")
        try:
            yield elector
        finally:
            standing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await standing
            await elector.release()
