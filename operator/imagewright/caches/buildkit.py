"""The cache of a BuildKit daemon."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from imagewright.api.reason import Reason
from imagewright.clients.buildkit.control import Control
from imagewright.clients.buildkit.errors import BuildKitError, Unreachable, Unsupported
from imagewright.clients.buildkit.usage import Prune, Record
from imagewright.clients.buildkit.workers import DESCRIPTIONS, SPACE_LIMITS
from imagewright.domain.estimate import Record as Estimated
from imagewright.domain.estimate import estimate
from imagewright.domain.prune import Policy, Reclaimed
from imagewright.failure.buildkit import translate
from imagewright.ports import Error, Failed, Rejected

OPERATORS = {"id": "~="}
"""How a field is compared; by equality where it is not here. An id is a pattern, as in buildx."""
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Need:
    """Fields of a policy that a daemon before `oldest` would read wrongly, without a word."""

    fields: str
    oldest: tuple[int, int]
    used: Callable[[Policy], object]
    otherwise: str
    instead: str


NEEDS = (
    Need(
        "spec.maxUsedSpace and spec.minFreeSpace need",
        SPACE_LIMITS,
        lambda policy: policy.max_used_space or policy.min_free_space,
        "remove everything instead",
        "give spec.reservedSpace alone",
    ),
    Need(
        "spec.filters.description needs",
        DESCRIPTIONS,
        lambda policy: policy.filters.get("description"),
        "find nothing to remove",
        "filter by type or id",
    ),
)


class BuildKitCache:
    """One daemon's records; in a dry run they are counted by the daemon's rules, and stay."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def usage(self) -> int:
        """The bytes of all records. Raises Unavailable."""
        return sum(record.size for record in await _asked(self._measured()))

    async def prune(self, policy: Policy) -> Reclaimed:
        """Free what the policy lets go; records in use stay.

        Raises Unavailable, and Rejected (FeatureUnsupported) where the daemon would misread a
        limit or a filter that is given.
        """
        for need in NEEDS:
            if need.used(policy):
                await self._check(need)
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

    async def _measured(self) -> tuple[Record, ...]:
        try:
            async with asyncio.TaskGroup() as asked:
                # One that is not there must not be waited for as long as one that measures.
                asked.create_task(self._control.info())
                measured = asked.create_task(self._control.disk_usage())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return measured.result()

    async def _check(self, need: Need) -> None:
        if await _asked(self._control.is_since(need.oldest)):
            return
        version = await _asked(self._control.info()) or "one that does not say its version"
        major, minor = need.oldest
        raise Rejected(
            f"{need.fields} BuildKit v{major}.{minor} or later, and this worker has {version}: "
            f"an older one would {need.otherwise}. Update it, or {need.instead}.",
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
        raise _meaning(error) from error


def _meaning(error: BuildKitError) -> Error:
    if isinstance(error, Unreachable | Unsupported):
        return translate(error)
    return Failed(f"The worker's daemon could not prune: {error}.", Reason.PRUNE_FAILED)
