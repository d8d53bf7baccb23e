"""Events: what became of an object, for `kubectl describe` and for those who collect them.

They never hold a build up: they are posted one after another beside it, so many a second at most,
and what the API server does not take is counted and let go. The status is what is true.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import structlog

from imagewright.api.imagebuild import GROUP, VERSION
from imagewright.domain.notice import Notice
from imagewright.metrics import Metrics
from imagewright.ports import Body, Error, Subject, Unavailable

log = structlog.get_logger("events")
HOME = "default"
"""The namespace of Events about objects that are in none, as client-go has it."""
WAITING = 1000
"""Events that wait to be posted; what comes on top is let go."""
LAST_SECONDS = 2.0
"""For what still waits when the operator ends."""
PAUSE_SECONDS = 10.0
"""Nothing is posted into a namespace for so long after it took none: it may be going."""
CONTROLLER = f"{GROUP}/operator"


class Creator(Protocol):
    """Takes new objects."""

    async def create(self, path: str, body: Body) -> dict[str, Any]:
        """Add the object to those at that path. Raises the ports' errors."""
        ...


class Bucket:
    """So many a second, and `burst` at once after a quiet time (a token bucket)."""

    def __init__(self, per_second: float, burst: int, now: Callable[[], float]) -> None:
        self._rate, self._burst, self._now = per_second, burst, now
        self._left, self._at = float(burst), now()

    def take(self) -> bool:
        """Whether one more may go now."""
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True)
class Pace:
    """How many Events a second, and how many at once; failures have as many for themselves."""

    per_second: float
    burst: int


class Events:
    """Events that are posted as long as `run` does; `reporter` is this operator's name."""

    def __init__(self, creator: Creator, reporter: str, pace: Pace, metrics: Metrics) -> None:
        self._creator, self._reporter, self._counted = creator, reporter, metrics.events
        self._buckets = {
            warning: Bucket(pace.per_second, pace.burst, time.monotonic)
            for warning in (False, True)
        }
        self._waiting: asyncio.Queue[tuple[str, Body]] = asyncio.Queue(WAITING)
        self._paused: dict[str, float] = {}

    def tell(self, subject: Subject, notice: Notice, now: datetime) -> None:
        """Post it soon, or let it go where there are too many. Never waits."""
        if self._waiting.full() or not self._buckets[notice.warning].take():
            self._counted.labels("dropped").inc()
            return
        event = event_of(subject, notice, now, self._reporter)
        self._waiting.put_nowait((event["metadata"]["namespace"], event))

    async def run(self) -> None:
        """Post what was told, until cancelled."""
        while True:
            namespace, event = await self._waiting.get()
            try:
                self._counted.labels(await self._post(namespace, event)).inc()
            finally:
                self._waiting.task_done()

    async def told(self) -> None:
        """Wait until nothing is left to be posted, but not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await self._waiting.join()

    async def _post(self, namespace: str, event: Body) -> str:
        """How it came out: posted, dropped or failed."""
        now = time.monotonic()
        self._paused = {one: until for one, until in self._paused.items() if until > now}
        if namespace in self._paused:
            return "dropped"
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        try:
            await self._creator.create(path, event)
        except Error as error:
            if isinstance(error, Unavailable):
                self._paused[namespace] = now + PAUSE_SECONDS
            log.debug("An Event was not posted", why=error.message)
            return "failed"
        return "posted"


@asynccontextmanager
async def posting(events: Events) -> AsyncIterator[Events]:
    """Posts them while the context is open, and what still waits at its end."""
    task = asyncio.create_task(events.run(), name="events")
    try:
        yield events
    finally:
        await events.told()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def event_of(subject: Subject, notice: Notice, now: datetime, reporter: str) -> dict[str, Any]:
    """An Event of events.k8s.io/v1, as it is posted."""
    regarding = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": subject.kind,
        "name": subject.name,
        "uid": subject.uid,
        **({"namespace": subject.namespace} if subject.namespace else {}),
    }
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "generateName": f"{subject.name}-",
            "namespace": subject.namespace or HOME,
        },
        "eventTime": f"{now:%Y-%m-%dT%H:%M:%S.%fZ}",
        "type": "Warning" if notice.warning else "Normal",
        "reason": notice.word,
        "action": notice.word.action,
        "note": notice.note,
        "regarding": regarding,
        "reportingController": CONTROLLER,
        "reportingInstance": reporter[:128],
    }
