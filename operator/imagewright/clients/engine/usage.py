"""The records of the build cache, in each shape that engines have sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from imagewright.clients.engine.errors import EngineError


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """One record of the build cache. Size in bytes; times are in UTC."""

    id: str
    type: str
    size: int
    parents: tuple[str, ...] = ()
    description: str = ""
    in_use: bool = False
    shared: bool = False
    """Whether an image holds it, too: its space would not become free."""
    created_at: datetime | None = None
    last_used_at: datetime | None = None
    usage_count: int = 0


def read_usage(found: Any) -> tuple[CacheRecord, ...]:
    """The answer to GET /system/df. Raises EngineError where it is none.

    The newest engines (API 1.52) have the records in BuildCacheUsage, where they are only if the
    request was verbose; all before have them in BuildCache, which may be null.
    """
    try:
        usage = found.get("BuildCacheUsage")
        records = (usage.get("Items") if usage else None) or found.get("BuildCache") or ()
        return tuple(_record(record) for record in records)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EngineError(f"The engine's records of its cache cannot be read: {error}.") from error


def _record(found: Mapping[str, Any]) -> CacheRecord:
    return CacheRecord(
        id=str(found["ID"]),
        type=str(found.get("Type") or ""),
        size=int(found.get("Size") or 0),
        parents=_parents(found),
        description=str(found.get("Description") or ""),
        in_use=bool(found.get("InUse")),
        shared=bool(found.get("Shared")),
        created_at=_time(found.get("CreatedAt")),
        last_used_at=_time(found.get("LastUsedAt")),
        usage_count=int(found.get("UsageCount") or 0),
    )


def _parents(found: Mapping[str, Any]) -> tuple[str, ...]:
    """The blank is the engine's own, since 23.0; before there was room for one parent."""
    parents = found.get(" Parents") or found.get("Parents") or ()
    one = found.get("Parent")
    return tuple(parents) or ((str(one),) if one else ())


def _time(text: str | None) -> datetime | None:
    """A time in RFC 3339, whose nanoseconds Python cuts to microseconds; None for Go's zero."""
    if not text:
        return None
    found = datetime.fromisoformat(text).astimezone(UTC)
    return found if found.year > 1 else None
