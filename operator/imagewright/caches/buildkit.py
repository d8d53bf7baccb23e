"""The cache of a BuildKit daemon."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

from imagewright.api.reason import Reason
from imagewright.clients.buildkit.control import Control
from imagewright.clients.buildkit.errors import BuildKitError, TLSRefused, Unreachable
from imagewright.clients.buildkit.usage import Prune, Record
from imagewright.domain.estimate import Record as Estimated
from imagewright.domain.estimate import estimate
from imagewright.domain.prune import Policy, Reclaimed
from imagewright.ports import Error, Failed, Rejected, Unavailable

OPERATORS = {"id": "~="}
"""How a field is compared; by equality where it is not here. An id is a pattern, as in buildx."""
ResultT = TypeVar("ResultT")


class BuildKitCache:
    """One daemon's records; in a dry run they are counted by the daemon's rules, and stay."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def usage(self) -> int:
        """The bytes of all records. Raises Unavailable."""
        # A daemon that is not there must not be waited for as long as one that measures.
        await _asked(self._control.info())
        return sum(record.size for record in await _asked(self._control.disk_usage()))

    async def prune(self, policy: Policy) -> Reclaimed:
        """Free what the policy lets go; records in use stay.

        Raises Unavailable, and Rejected (FeatureUnsupported) where the daemon would not read a
        limit that is given, and so remove everything.
        """
        if policy.max_used_space or policy.min_free_space:
            await self._check_limits()
        if policy.dry_run:
            return await self._estimate(policy)
        request = Prune(
            filters=tuple(expressions(policy)),
            all=policy.all,
            keep_duration_seconds=policy.keep.total_seconds(),
            reserved_space=policy.reserved_space,
            max_used_space=policy.max_used_space,
            min_free_space=policy.min_free_space,
        )
        gone = await _asked(self._control.prune(request))
        return Reclaimed(sum(record.size for record in gone), tuple(one.id for one in gone))

    async def _check_limits(self) -> None:
        if await _asked(self._control.knows_space_limits()):
            return
        version = await _asked(self._control.info()) or "one that does not say its version"
        raise Rejected(
            "spec.maxUsedSpace and spec.minFreeSpace need BuildKit v0.17 or later, and this "
            f"worker has {version}: an older one would remove everything instead. Update it, or "
            "give spec.reservedSpace alone.",
            Reason.FEATURE_UNSUPPORTED,
        )

    async def _estimate(self, policy: Policy) -> Reclaimed:
        records = [_estimated(record) for record in await _asked(self._control.disk_usage())]
        return await asyncio.to_thread(estimate, records, policy, datetime.now(UTC))


def expressions(policy: Policy) -> Iterator[str]:
    """The policy's filters as BuildKit reads them: alternatives to one another."""
    columns = [
        [f"{name}{_compared(name, value)}" for value in values]
        for name, values in policy.filters.items()
    ]
    for together in itertools.product(*columns):
        if together:
            yield ",".join(together)


def _compared(name: str, value: str) -> str:
    # A quoted value may hold commas and blanks; Go and JSON quote alike.
    return OPERATORS.get(name, "==") + json.dumps(value, ensure_ascii=False)


def _estimated(record: Record) -> Estimated:
    return Estimated(
        id=record.id,
        size=record.size,
        type=record.type or "regular",
        description=record.description,
        parents=record.parents,
        in_use=record.in_use,
        shared=record.shared,
        last_used=record.last_used,
        usage_count=record.usage_count,
    )


async def _asked(call: Awaitable[ResultT]) -> ResultT:
    """The call's answer. Raises Unavailable, Rejected or Failed for what went wrong."""
    try:
        return await call
    except BuildKitError as error:
        raise translate(error) from error


def translate(error: BuildKitError) -> Error:
    """What a failed call to a daemon's cache means."""
    if isinstance(error, TLSRefused):
        return Unavailable(
            f"The worker and the operator do not accept one another's certificates: {error}.",
            Reason.TLS_FAILED,
        )
    if isinstance(error, Unreachable):
        return Unavailable(f"The worker does not answer: {error}.")
    return Failed(f"The worker's daemon could not prune: {error}.", Reason.PRUNE_FAILED)
