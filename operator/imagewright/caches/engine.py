"""The build cache of a Docker Engine: that of the BuildKit inside of it.

The classic builder's own cache are the images of its steps, which no prune of a build cache takes.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

from imagewright.api.reason import Reason
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import EngineError, Unreachable, Unsupported
from imagewright.clients.engine.prune import Prune
from imagewright.clients.engine.usage import CacheRecord
from imagewright.domain.estimate import Record, estimate
from imagewright.domain.prune import Policy, Reclaimed
from imagewright.failure.engine import translate
from imagewright.ports import Error, Failed, Rejected

ResultT = TypeVar("ResultT")


class EngineCache:
    """One engine's records; in a dry run they are counted by BuildKit's rules, and stay."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def usage(self) -> int:
        """The bytes of all records. Raises Unavailable."""
        # An engine that is not there must not be waited for as long as one that measures.
        await _asked(self._engine.ping())
        return sum(record.size for record in await _asked(self._engine.disk_usage()))

    async def prune(self, policy: Policy) -> Reclaimed:
        """Free what the policy lets go; records in use stay.

        Raises Unavailable, and Rejected (FeatureUnsupported) where the engine would not read a
        limit that is given, and so remove everything.
        """
        if policy.dry_run:
            records = [_estimated(one) for one in await _asked(self._engine.disk_usage())]
            return await asyncio.to_thread(estimate, records, policy, datetime.now(UTC))
        # An engine takes one value of a field, so alternatives are prunes of their own.
        done = [await _asked(self._engine.prune(one)) for one in requests(policy)]
        ids = tuple(dict.fromkeys(name for one in done for name in one.ids))
        return Reclaimed(sum(one.reclaimed for one in done), ids)


def requests(policy: Policy) -> Iterator[Prune]:
    """The policy as engines take it, once for each combination of its filters' values."""
    columns = [[(name, value) for value in values] for name, values in policy.filters.items()]
    for together in itertools.product(*columns):
        yield Prune(
            all=policy.all,
            keep=policy.keep,
            reserved_space=policy.reserved_space,
            max_used_space=policy.max_used_space,
            min_free_space=policy.min_free_space,
            filters=dict(together),
        )


def _estimated(record: CacheRecord) -> Record:
    last = record.last_used_at
    return Record(
        id=record.id,
        size=record.size,
        type=record.type or "regular",
        description=record.description,
        parents=record.parents,
        in_use=record.in_use,
        shared=record.shared,
        last_used=last.timestamp() if last else None,
        usage_count=record.usage_count,
    )


async def _asked(call: Awaitable[ResultT]) -> ResultT:
    """The call's answer. Raises Unavailable, Rejected or Failed for what went wrong."""
    try:
        return await call
    except EngineError as error:
        raise _meaning(error) from error


def _meaning(error: EngineError) -> Error:
    if isinstance(error, Unreachable):
        return translate(error)
    if isinstance(error, Unsupported):
        return Rejected(f"The engine cannot prune so: {error}.", Reason.FEATURE_UNSUPPORTED)
    return Failed(f"The engine could not prune: {error}.", Reason.PRUNE_FAILED)
