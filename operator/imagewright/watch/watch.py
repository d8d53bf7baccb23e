"""kopf under supervision: it hands events over, and may die without a build noticing.

kopf ends itself on some watch errors, and then cancels every task of its loop. So it runs in a
thread and loop of its own, under a supervisor that starts it again; builds live in the main loop.
Its handlers are `on.event` alone: all other kinds write annotations and finalizers.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import kopf
import structlog

from imagewright.api.imagebuild import GROUP, VERSION
from imagewright.kube.access import load_access
from imagewright.metrics import Metrics
from imagewright.ports import Body
from imagewright.settings import Settings
from imagewright.watch.quiet import watch_settings
from imagewright.watch.session import Ear, kinds, session

log = structlog.get_logger("watch")
LOOK_SECONDS = 0.25
WATCHER = "watcher for "
LOGIN_PAUSE = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
UP_SECONDS = 15.0
"""A kopf that does not watch by then is started again: it looks only once for what is served."""
SHORT_LIFE = 3.0
"""A kopf that lives shorter than this many seconds is started again with a growing pause."""
CANCELS = 4
"""How often what does not end is cancelled."""
TELL_SECONDS = 60.0
"""Between two lines about one trouble."""


@dataclass(frozen=True, slots=True)
class Sink:
    """Where what is seen of one kind goes; all but `idle` are called in the main loop."""

    idle: Callable[[Body], bool]
    """Whether nothing would come of seeing this; called in kopf's thread."""
    seen: Callable[[Body], object]
    deleted: Callable[[str], None]
    missed: Callable[[], None]
    """kopf lists anew: so must we, since it tells nothing of what went meanwhile."""


class Watch:
    """kopf under supervision: `start()` in the main loop, `stop()` waits for the thread's end.

    `sinks` are the kinds that are watched, by plural.
    """

    def __init__(self, sinks: Mapping[str, Sink], settings: Settings, metrics: Metrics) -> None:
        self._sinks, self._metrics = dict(sinks), metrics
        self._namespaces, self._kubeconfig = tuple(settings.namespaces), settings.kubeconfig
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._starts = 0
        self._listed: set[str] = set()
        self._told = -TELL_SECONDS
        self._up, self._why = False, "it has not begun yet"
        self._failing: dict[str, str] = {}

    @property
    def ready(self) -> bool:
        """Whether what happens is seen."""
        return not self.trouble()

    def trouble(self) -> str:
        """Why it is not; empty where it is."""
        # A copy: kopf's thread may change it meanwhile.
        failing = [f"{plural}: {why}" for plural, why in dict(self._failing).items()]
        found = failing or ([] if self._up else [self._why])
        return f"the watch is not up: {found[0]}" if found else ""

    def start(self) -> None:
        """Start the thread."""
        self._main = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._supervise, name="kopf", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End kopf and its thread."""
        self._stopping.set()
        self.interrupt()
        await asyncio.to_thread(self._thread.join, 5)

    def interrupt(self) -> None:
        """End the kopf that runs now, as one of its own errors would; the supervisor goes on."""
        loop, task = self._loop, self._task
        if loop is not None and task is not None:
            with contextlib.suppress(
                RuntimeError
            ):  # The loop may have closed by itself meanwhile.
                loop.call_soon_threadsafe(task.cancel)

    def _supervise(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                run_bounded(self._operate())
            except BaseException as error:  # noqa: BLE001  # nothing ends the supervisor
                self._why = repr(error)
                self._tell(self._why)
            lived = time.monotonic() - began
            self._up = False
            pause = min(pause * 2, LONGEST_PAUSE) if lived < SHORT_LIFE else FIRST_PAUSE
            self._stopping.wait(pause)

    async def _operate(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if missing := sorted(set(self._sinks) - await kinds(await load_access(self._kubeconfig))):
            raise NotServedError(missing)
        self._starts += 1
        flag = asyncio.Event()
        operator = asyncio.create_task(self._kopf(flag), name="kopf")
        minder = asyncio.create_task(self._mind(flag), name="kopf's minder")
        try:
            ended, _ = await asyncio.wait({operator, minder}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # From here: kopf cancels at its end what has begun after it.
            await end({operator, minder})
        for task in ended:
            task.result()

    async def _kopf(self, flag: asyncio.Event) -> None:
        await kopf.operator(
            registry=self._registry(),
            settings=watch_settings(),
            namespaces=self._namespaces,
            clusterwide=not self._namespaces,
            ready_flag=flag,
        )

    async def _mind(self, flag: asyncio.Event) -> None:
        """Return when kopf lacks a watcher: it goes on without, and says nothing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UP_SECONDS):
                await flag.wait()
                while not self._watching():
                    await asyncio.sleep(LOOK_SECONDS)
        if self._watching():
            self._watches()
        while self._watching():
            await asyncio.sleep(LOOK_SECONDS)
        self._why = "one of kopf's watchers has ended"
        log.warning("kopf goes on without a watcher of its: it is ended")

    def _watches(self) -> None:
        self._up = True
        log.info("Watching", start=self._starts)
        if self._starts > 1:
            self._metrics.watch_restarts.inc()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        ears = {
            plural: Ear(sink.idle, partial(self._lists, plural), partial(self._asked, plural))
            for plural, sink in self._sinks.items()
        }

        @kopf.on.login(registry=registry, backoff=LOGIN_PAUSE)
        async def login(**_: Any) -> kopf.AiohttpSession:
            return await session(await load_access(self._kubeconfig), ears)

        for plural, sink in self._sinks.items():
            self._listen(registry, plural, sink)
        return registry

    def _listen(self, registry: kopf.OperatorRegistry, plural: str, sink: Sink) -> None:
        @kopf.on.event(GROUP, VERSION, plural, registry=registry)
        async def on_event(event: kopf.RawEvent, **_: Any) -> None:
            body: Any = event["object"]
            if event["type"] == "DELETED":
                self._main.call_soon_threadsafe(sink.deleted, body["metadata"]["uid"])
            else:
                self._main.call_soon_threadsafe(sink.seen, body)

    def _lists(self, plural: str, path: str, bodies: list[Body]) -> None:
        """A first list shows what there is; each later one hides what went before it."""
        for body in bodies:
            self._main.call_soon_threadsafe(self._sinks[plural].seen, body)
        if path in self._listed:
            self._main.call_soon_threadsafe(self._sinks[plural].missed)
        self._listed.add(path)

    def _asked(self, plural: str, why: str) -> None:
        if why:
            self._failing[plural] = why
            self._tell(f"{plural}: {why}")
        else:
            self._failing.pop(plural, None)

    def _tell(self, why: str) -> None:
        """Say it, unless something of the kind was said within a minute."""
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS and not self._stopping.is_set():
            self._told = now
            log.warning("The watch is not up, and is tried again and again", why=why)

    def _watching(self) -> bool:
        """Whether a watcher of kopf's runs in this loop for each kind."""
        return set(self._sinks) <= watched()


class NotServedError(Exception):
    """The API server does not know our kinds: kopf would look only once, and never again."""

    def __init__(self, missing: list[str]) -> None:
        super().__init__(f"{', '.join(missing)} not served; are the CRDs installed?")


def watched() -> set[str]:
    """The kinds, by plural, that a watcher of kopf's runs for in this loop.

    kopf names the task: "watcher for imagebuilds.v1alpha1.imagewright.dev@None".
    """
    names = (task.get_name() for task in asyncio.all_tasks())
    return {
        name.removeprefix(WATCHER).partition(".")[0] for name in names if name.startswith(WATCHER)
    }


async def end(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel the tasks, again and again, and wait for a second at most until they have ended.

    kopf may not end when it is cancelled once: a watch that still waits for its answer takes that
    for a pause, and begins anew (kopf's clients/api.py, stream).
    """
    for _ in range(CANCELS):
        if tasks:
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=1 / CANCELS)


def run_bounded(work: Coroutine[Any, Any, None]) -> None:
    """Run in a loop of its own, and end what is left; asyncio.run() would wait for ever for it."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.run_until_complete(end(asyncio.all_tasks(loop)))
        loop.close()
