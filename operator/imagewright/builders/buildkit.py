"""BuildKit as a builder: an Order in BuildKit's words, its answers in ours."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from imagewright.api.reason import Reason
from imagewright.builders.context import Context, context_of, git_source
from imagewright.builders.provision import opening, served, session_needed
from imagewright.builders.request import built_of, kept_by_engine, pushed_by_daemon, request_of
from imagewright.clients.buildkit import control
from imagewright.clients.buildkit.errors import BuildKitError
from imagewright.clients.buildkit.session import Session
from imagewright.clients.buildkit.status import Event
from imagewright.clients.registry.tokens import TokenClient
from imagewright.domain.outcome import Built
from imagewright.domain.plan import Config, Directory, Form, Git, Http, Oci, Order, Plan, Source
from imagewright.domain.progress import Advance, Output, Step
from imagewright.failure.buildkit import translate
from imagewright.ports import Keyring, Rejected, Report

FOLLOW_SECONDS = 5
"""How long the end of the Status stream is waited for once the build is over.

A daemon that never ends it keeps no slot: the answer to the Solve is what counts.
"""
CONFIRM_SECONDS = 600
"""How long a cancelled build counts as running while the daemon says so: one without a sandbox for
processes kills the first of a step's and waits for the others (BuildKit #2855, #4483)."""
OLDEST_WITH_POLICIES = (0, 11)
BEYOND_ENGINES: dict[str, Callable[[Plan], bool]] = {
    "spec.squash": lambda plan: plan.squash,
    "spec.annotations": lambda plan: bool(plan.annotations),
    "spec.cache.to": lambda plan: bool(plan.cache_to),
    "several spec.platforms": lambda plan: len(plan.platforms) > 1,
    "spec.output and spec.attestations": lambda plan: plan.form != Form(),
}
"""What an engine's exporter would leave out in silence, or refuse after the build."""


class BuildKitBuilder:
    """Builds on one BuildKit daemon, over the one warm channel of `daemon`.

    A daemon by itself pushes what it builds. One that is part of an engine (`in_engine`) leaves
    the image in the engine's store, without a name.
    """

    def __init__(
        self, daemon: control.Control, tokens: TokenClient, *, in_engine: bool = False
    ) -> None:
        self._daemon, self._tokens, self._in_engine = daemon, tokens, in_engine
        self._exports = kept_by_engine if in_engine else pushed_by_daemon
        self._version: str | None = None

    def lacks(self, plan: Plan) -> str:
        """What an engine's BuildKit cannot do, since its image store keeps what it builds."""
        if not self._in_engine:
            return ""
        asked = [name for name, used in BEYOND_ENGINES.items() if used(plan)]
        return f"its engine's BuildKit knows no {' and no '.join(asked)}" if asked else ""

    def fetches(self, source: Source) -> bool:
        """All but images, and URLs that ask who we are."""
        return not isinstance(source, Oci | Config) and not (
            isinstance(source, Http) and source.secret
        )

    async def resolve(self, source: Git, keyring: Keyring) -> Git:
        """The source with its commit, as the daemon sees the repository."""
        plan = Plan(source)
        try:
            asked = git_source(source, await opening(source, keyring))
            async with self._session(plan, Context(), keyring) as session:
                found = await self._daemon.resolve_git(asked, session)
        except BuildKitError as error:
            raise translate(error) from error
        return replace(source, ref=found.ref, commit=found.commit)

    async def build(self, order: Order, keyring: Keyring, report: Report) -> Built:
        """One Solve, with its Status stream followed for progress and logs."""
        access = await opening(order.plan.source, keyring)
        if isinstance(order.plan.source, Directory):
            # It is looked at, and that may block.
            context = await asyncio.to_thread(context_of, order.plan)
        else:
            context = context_of(order.plan, access)
        try:
            await self._check(order.plan, context)
            async with self._session(order.plan, context, keyring) as session:
                return await self._built(order, request_of(order, context, session), report)
        except BuildKitError as error:
            raise translate(error) from error

    async def _built(self, order: Order, request: control.Solve, report: Report) -> Built:
        base: tuple[str, ...] = ()
        if order.plan.squash:
            found = await self._daemon.base_of(request)
            base = found.diff_ids if found else ()
        answer = await self._solve(replace(request, exports=self._exports(order)), report)
        if self._in_engine:
            # An engine's id: of the configuration with a graph driver, else of the manifest.
            return Built(image_id=answer["containerimage.digest"])
        return built_of(order, answer, base)

    async def _solve(self, request: control.Solve, report: Report) -> dict[str, str]:
        following = asyncio.create_task(self._follow(request.ref, report))
        try:
            return await self._daemon.solve(request)
        except asyncio.CancelledError:
            # Our call has ended; the stream does when the build has, which can be much later.
            await asyncio.wait([following], timeout=CONFIRM_SECONDS)
            raise
        finally:
            # The tail of the log comes after the answer; a cancelled build has waited above.
            task = asyncio.current_task()
            try:
                if task is not None and not task.cancelling():
                    await asyncio.wait([following], timeout=FOLLOW_SECONDS)
            finally:
                following.cancel()

    async def _follow(self, ref: str, report: Report) -> None:
        # Whatever breaks the stream breaks the Solve too, and that one is heard.
        with suppress(BuildKitError):
            async for event in self._daemon.follow(ref):
                report(advance_of(event))

    async def _check(self, plan: Plan, context: Context) -> None:
        """Refuse what this daemon cannot do, or would silently leave out."""
        if lacking := self.lacks(plan):
            raise Rejected(f"The worker cannot build this: {lacking}.", Reason.FEATURE_UNSUPPORTED)
        if not context.checksums:
            return
        if self._version is None:
            self._version = await self._daemon.info()
        if older(self._version, OLDEST_WITH_POLICIES):
            raise Rejected(
                "spec.source.http.sha256 needs BuildKit v0.11 or later on the worker: an older "
                "one would not check it. Update the worker, or leave the sha256 out.",
                Reason.FEATURE_UNSUPPORTED,
            )

    @asynccontextmanager
    async def _session(self, plan: Plan, context: Context, keyring: Keyring) -> AsyncIterator[str]:
        """The id of a session that serves what the build needs; empty, and none, without needs."""
        if not session_needed(plan, context):
            yield ""
            return
        handlers, shared_key = served(plan, context, keyring, self._tokens)
        async with Session(self._daemon.open_session, handlers, shared_key) as session:
            yield session.id


def advance_of(event: Event) -> Advance:
    """A Status event in our words."""
    return Advance(
        steps=tuple(
            Step(one.digest, one.name, one.cached, one.started, one.completed, one.error)
            for one in event.vertexes
        ),
        outputs=tuple(Output(log.vertex, log.data) for log in event.logs),
    )


def older(version: str, than: tuple[int, int]) -> bool:
    """Whether a version is older. One built without a version (v0.0.0) is taken for a new one."""
    numbers = version.lstrip("v").split(".")
    if not version:
        return True
    if len(numbers) < len(than) or not all(part.isdigit() for part in numbers[:2]):
        return False
    found = (int(numbers[0]), int(numbers[1]))
    return found != (0, 0) and found < than
