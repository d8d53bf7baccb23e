"""The build backend: builders and an image store put together, in the engine's own order.

Names are parsed before anything is sent, so a bad one ends the build at once. Then the builder is
chosen, and it builds; then the layers are merged, where that was asked for; names come last, so
that no name ever stands for half of an image.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from imagewright.api.reason import Reason
from imagewright.domain.outcome import Built, Pushed
from imagewright.domain.plan import Directory, Git, Oci, Order, Plan
from imagewright.domain.progress import Advance, Output
from imagewright.domain.reference import InvalidReference, Reference, parse, parse_all
from imagewright.ports import Builder, Error, ImageStore, Keyring, Rejected, Report, Sources

ASKED_SECONDS = 10.0
"""For one question after what a name stands for."""


class Backend:
    """Builds plans on one worker. Raises ValueError at once where a part is missing."""

    def __init__(
        self, builders: Mapping[str, Builder], store: ImageStore, sources: Sources
    ) -> None:
        if not builders:
            raise ValueError("A backend needs a builder: give it one.")
        self._builders, self._store, self._sources = dict(builders), store, sources

    def lacks(self, plan: Plan) -> str:
        """What such a plan asks for and this worker has not; empty where it has all."""
        builder = self._builders.get(plan.builder)
        return builder.lacks(plan) if builder else f"it has no {plan.builder} builder"

    async def resolve(self, plan: Plan, keyring: Keyring) -> Plan:
        """The plan with its revision resolved to a commit or digest; any other as it is.

        Raises Failed where there is no such revision.
        """
        source, builder = plan.source, self._builders[plan.builder]
        if plan.resolved or not isinstance(source, Git | Oci):
            return plan
        if isinstance(source, Git) and builder.fetches(source):
            return replace(plan, source=await builder.resolve(source, keyring))
        return replace(plan, source=await self._sources.resolve(source, keyring))

    async def build(self, ref: str, plan: Plan, keyring: Keyring, report: Report) -> Built:
        """Build `plan` under the id `ref`, and give the image each of its names.

        Raises Rejected, Failed or Unavailable; cancelled by cancelling the task.
        """
        try:
            names = parse_all(plan.images)
        except InvalidReference as error:
            raise Rejected(str(error), Reason.INVALID_REFERENCE) from error
        builder = self._builders[plan.builder]
        async with self._fetched(builder, plan, keyring) as ready:
            built = await builder.build(Order(ref, ready, names), keyring, report)
        # A builder that merges layers by itself leaves none to merge.
        if plan.squash and built.repository:
            built = await self._store.squash(built, keyring)
        return await self._named(built, names, keyring, report)

    async def checked(self, built: Built, keyring: Keyring) -> Built:
        """Ask the registries what our names stand for now; who does not answer is not waited for.

        A request for each name would make every build slower for what happens to next to none: so
        it is for the caller to say when (`Jobs` does where a rival is known).
        """
        pushed = [await self._asked_after(one, keyring) for one in built.pushed]
        return replace(built, pushed=tuple(pushed))

    async def _asked_after(self, one: Pushed, keyring: Keyring) -> Pushed:
        try:
            async with asyncio.timeout(ASKED_SECONDS):
                digest = await self._store.holds(parse(f"{one.name}:{one.tag}"), keyring)
        except (Error, TimeoutError):
            return one
        return replace(one, overtaken=digest not in {"", one.digest})

    @asynccontextmanager
    async def _fetched(
        self, builder: Builder, plan: Plan, keyring: Keyring
    ) -> AsyncIterator[Plan]:
        """The plan with its source as files, where the daemon does not fetch it by itself."""
        if builder.fetches(plan.source):
            yield plan
            return
        async with self._sources.tree(plan.source, keyring) as tree:
            yield replace(plan, source=Directory(str(tree.path)))

    async def _named(
        self, built: Built, names: tuple[Reference, ...], keyring: Keyring, report: Report
    ) -> Built:
        """The image with all of its names, given in order.

        The first that cannot be given ends it: those before it stay, and the error carries the
        image, which is there all the same. A build without an output has nothing to name.
        """
        pushed = list(built.pushed)
        if not built.image_id and not built.image_digest:
            return built
        for name in names[len(pushed) :]:
            try:
                pushed.append(await self._store.tag(built, name, keyring))
            except Error as error:
                error.built = replace(built, pushed=tuple(pushed))
                raise
        for name in names:
            line = f"Successfully tagged {name.familiar()}\n"
            report(Advance(outputs=(Output("", line.encode()),)))
        digest = built.image_digest or (pushed[0].digest if pushed else "")
        return replace(built, pushed=tuple(pushed), image_digest=digest)
