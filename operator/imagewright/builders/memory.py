"""Builds nothing, at once: for tests of everything around a builder."""

import asyncio
import hashlib
from dataclasses import replace

from imagewright.domain.outcome import Built, Pushed
from imagewright.domain.plan import Git, Order, Plan, Source
from imagewright.domain.progress import Advance, Step
from imagewright.ports import Error, Keyring, Report


class MemoryBuilder:
    """Ends every build as it is told: with `error`, or well once `go` is set (it is at first)."""

    def __init__(self, error: Error | None = None) -> None:
        self.error = error
        self.go = asyncio.Event()
        self.go.set()
        self.resolving = asyncio.Event()
        self.resolving.set()
        self.orders: list[Order] = []
        self.cancelled: list[str] = []

    def lacks(self, plan: Plan) -> str:  # noqa: ARG002  # the port's
        """Nothing."""
        return ""

    def fetches(self, source: Source) -> bool:  # noqa: ARG002  # the port's
        """Everything: it looks at none of it."""
        return True

    async def resolve(self, source: Git, keyring: Keyring) -> Git:  # noqa: ARG002  # the port's
        """A commit made of the revision's name, once `resolving` is set."""
        await self.resolving.wait()
        if self.error:
            raise self.error
        commit = hashlib.sha1(source.revision.encode(), usedforsecurity=False).hexdigest()
        return replace(source, ref=source.revision, commit=commit)

    async def build(
        self,
        order: Order,
        keyring: Keyring,  # noqa: ARG002  # the port's
        report: Report,
    ) -> Built:
        """Wait for `go`, then a digest made of the plan."""
        self.orders.append(order)
        report(Advance(steps=(Step("1", "[1/1] COPY . /", started=0.0),)))
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(order.ref)
            raise
        if self.error:
            raise self.error
        report(Advance(steps=(Step("1", "[1/1] COPY . /", started=0.0, completed=1.0),)))
        digest = "sha256:" + hashlib.sha256(repr(order.plan).encode()).hexdigest()
        if not order.names:
            return Built()
        pushed = tuple(
            Pushed(name.name, name.tag, digest, name.pinned(digest)) for name in order.names
        )
        return Built(image_digest=digest, image_id=digest, pushed=pushed)
