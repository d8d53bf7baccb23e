"""The classic builder of a Docker Engine: an Order as its build request, its stream as progress.

The request carries no name. An engine moves a name to whatever was built last, and tells nobody
which build that was, so names are given by the image store, one build at a time.
"""

import asyncio
import time
from collections.abc import AsyncIterator

from imagewright.api.reason import Reason
from imagewright.builders.archive import OWN_DOCKERFILE, packed
from imagewright.builders.folder import files_of, folder_of
from imagewright.builders.transcript import Transcript
from imagewright.clients.buildkit.globs import PatternError
from imagewright.clients.buildkit.trees import Directory as Folder
from imagewright.clients.buildkit.trees import Files, Tree
from imagewright.clients.engine.auth import Login as EngineLogin
from imagewright.clients.engine.build import Build
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import EngineError, StreamError
from imagewright.domain.outcome import Built
from imagewright.domain.plan import Directory, Git, Inline, Order, Plan, Source
from imagewright.failure.engine import translate
from imagewright.ports import Failed, Keyring, Rejected, Report


class ClassicBuilder:
    """Builds on one engine, one request a build; closing the request is the cancel."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def lacks(self, plan: Plan) -> str:  # noqa: ARG002  # the port's
        """Nothing that is known before the engine is asked."""
        return ""

    def fetches(self, source: Source) -> bool:
        """Nothing: what an engine fetches by itself cannot be cancelled, checked or trusted."""
        return isinstance(source, Inline | Directory)

    async def resolve(self, source: Git, keyring: Keyring) -> Git:  # noqa: ARG002  # the port's
        """Not asked for, since the engine fetches no repository."""
        raise LookupError("The backend resolves what a builder does not fetch.")

    async def build(self, order: Order, keyring: Keyring, report: Report) -> Built:
        """One build request, with its stream followed for progress and logs."""
        plan = order.plan
        try:
            await self._check(plan)
            context = await _context(plan)
            request = await self._request(plan, keyring)
            return Built(image_id=await self._run(request, context, report))
        except EngineError as error:
            raise translate(error) from error
        except (OSError, PatternError) as error:
            raise Failed(
                f"The context cannot be read: {error}.", Reason.SOURCE_UNAVAILABLE
            ) from error

    async def _run(self, request: Build, context: AsyncIterator[bytes], report: Report) -> str:
        transcript = Transcript(time.time)

        def heard(text: str) -> None:
            report(transcript.read(text))

        try:
            result = await self._engine.run(request, context, heard)
        except StreamError as error:
            report(transcript.failed(str(error)))
            raise
        return result.image_id

    async def _check(self, plan: Plan) -> None:
        """Squash is refused here: a containerd store would do the whole build, and then say no."""
        if not plan.squash:
            return
        info = await self._engine.info()
        if info.containerd_store:
            raise Rejected(
                "spec.squash: this engine keeps its images in a containerd store, which cannot "
                "squash: build with builder: buildkit, or on an engine with a graph driver.",
                Reason.FEATURE_UNSUPPORTED,
            )
        if not info.experimental:
            raise Rejected(
                "spec.squash: this engine squashes only in experimental mode: start it with "
                "--experimental, or build with builder: buildkit.",
                Reason.FEATURE_UNSUPPORTED,
            )

    async def _request(self, plan: Plan, keyring: Keyring) -> Build:
        logins = await keyring.logins()
        sandbox = plan.sandbox
        return Build(
            dockerfile=OWN_DOCKERFILE if plan.dockerfile_inline else plan.dockerfile,
            target=plan.target,
            build_args=plan.build_args,
            labels=plan.labels,
            no_cache=plan.no_cache,
            pull=plan.pull,
            squash=plan.squash,
            platform=plan.platforms[0] if plan.platforms else "",
            network=sandbox.network,
            extra_hosts=sandbox.extra_hosts,
            shm_size=sandbox.shm_size,
            ulimits=tuple((one.name, one.soft, one.hard) for one in sandbox.ulimits),
            limits=sandbox.limits,
            cache_from=plan.cache_from,
            registries={
                host: EngineLogin(one.username, one.password) for host, one in logins.items()
            },
        )


async def _context(plan: Plan) -> AsyncIterator[bytes]:
    """The context as a tar stream."""
    tree = await asyncio.to_thread(_tree, plan)
    return packed(tree, plan.dockerfile, plan.dockerfile_inline)


def _tree(plan: Plan) -> Tree:
    match plan.source:
        case Inline():
            return Files(files_of(plan.source, plan.context_dir))
        case Directory():
            return Folder(folder_of(plan.source, plan.context_dir), xattrs=False)
        case _:
            raise LookupError("The backend turns what a builder does not fetch into files first.")
