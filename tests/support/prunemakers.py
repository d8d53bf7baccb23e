"""Values for tests of prunes: an object, facts about it, caches in memory."""

import asyncio
from collections.abc import Mapping
from datetime import UTC
from typing import Any

from imagewright.api.buildcacheprune import BuildCachePrune
from imagewright.domain.prune import Policy, Reclaimed, Swept, Target
from imagewright.domain.prunefacts import PruneFacts, Sweep
from imagewright.ports import Error
from tests.support.makers import NOW, UID

ONE, TWO = Target("p", "one", "buildkit"), Target("p", "two", "buildkit")
SOURCE = Target("", "", "sources")


def a_prune_body(spec: Mapping[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """A BuildCachePrune as the API server sends it, not looked at yet."""
    return {
        "apiVersion": "imagewright.dev/v1alpha1",
        "kind": "BuildCachePrune",
        "metadata": {
            "name": "one",
            "uid": UID,
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-02T03:00:00Z",
            **metadata,
        },
        "spec": {**(spec or {})},
        "status": {"observedGeneration": -1},
    }


def a_prune(
    spec: Mapping[str, Any] | None = None, status: Mapping[str, Any] | None = None, **metadata: Any
) -> BuildCachePrune:
    """A prune; a status is one of this very generation unless it says otherwise."""
    body = a_prune_body(spec, **metadata)
    if status is not None:
        body["status"] = {"observedGeneration": body["metadata"]["generation"], **status}
    return BuildCachePrune.parse(body)


def prune_facts(
    prune: BuildCachePrune | None, results: tuple[Swept, ...] | None = None, **more: Any
) -> PruneFacts:
    """Facts about the prune; results are those of a sweep for this very generation."""
    if results is not None and prune is not None:
        more["sweep"] = Sweep(prune.metadata.generation, results)
    facts = {"now": NOW, "zones": {"UTC": UTC, "Mars/Base": None}, "uid": UID, **more}
    return PruneFacts(prune, **facts)


class FakeCache:
    """A cache of so many bytes; a prune waits for `go`, which is set at first, and takes all."""

    def __init__(self, size: int = 100, error: Exception | None = None) -> None:
        self.size, self.error = size, error
        self.policies: list[Policy] = []
        self.asked = self.cancelled = 0
        self.go = asyncio.Event()
        self.go.set()

    async def usage(self) -> int:
        """What it holds."""
        self.asked += 1
        return self.size

    async def prune(self, policy: Policy) -> Reclaimed:
        """Everything, or the error."""
        self.policies.append(policy)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        freed, self.size = self.size, 0
        return Reclaimed(freed, ("id",) if freed else ())


class MuteCache(FakeCache):
    """One that does not even say what it holds."""

    async def usage(self) -> int:
        """Never."""
        self.asked += 1
        raise self.error or Error("It does not answer.")
