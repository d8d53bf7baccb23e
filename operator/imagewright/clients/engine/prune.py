"""What a prune of the build cache asks for, said so that each engine understands it.

An engine removes everything where it does not know a limit, or ignores a filter. So nothing is
sent that would be overlooked.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from imagewright.clients.engine.errors import EngineError, Unsupported
from imagewright.clients.engine.version import Api

LIMITS_SINCE: Api = (1, 48)
"""Docker 28.0. Before it there is only an amount to keep, under another name."""
DESCRIPTIONS_SINCE: Api = (1, 46)
"""Docker 27.0, with BuildKit v0.14. Before it a prune does not know what records are."""
VALUED = frozenset({"id", "type", "description"})
BARE = frozenset({"shared", "private"})
"""Filters that are there or not; with a value they match nothing."""
USELESS = {
    "label": "an engine ignores it, and would remove everything",
    "inuse": "records in use are never removed",
    "parent": "an engine never matches it",
}


@dataclass(frozen=True, slots=True)
class Prune:
    """What may go. Spaces in bytes, 0 where unset; `keep` spares what was used more recently.

    Without `all`, records that are shared with images, internal or a frontend's stay. `filters`
    must all match: `id` is a regular expression, `type` and `description` are exact, `shared` and
    `private` stand with an empty value. Raises ValueError for a filter that would not do what it
    says.
    """

    all: bool = False
    keep: timedelta = timedelta(0)
    reserved_space: int = 0
    max_used_space: int = 0
    min_free_space: int = 0
    filters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spaces = (self.reserved_space, self.max_used_space, self.min_free_space)
        if min(spaces) < 0 or self.keep < timedelta(0):
            raise ValueError("A space or an age to keep cannot be less than nothing.")
        for name, value in self.filters.items():
            _check(name, value)

    def query(self, api: Api) -> list[tuple[str, str]]:
        """The parameters of the request. Raises Unsupported for what would be overlooked."""
        if "description" in self.filters and api < DESCRIPTIONS_SINCE:
            raise Unsupported(
                "a filter by description needs API 1.46 (Docker 27.0), and this engine speaks "
                f"{api[0]}.{api[1]}, where it matches nothing"
            )
        found = dict(self._spaces(api))
        if self.all:
            found["all"] = "1"
        if filters := self._filters():
            found["filters"] = json.dumps(filters)
        return list(found.items())

    def _spaces(self, api: Api) -> Iterator[tuple[str, str]]:
        if api < LIMITS_SINCE:
            if self.max_used_space or self.min_free_space:
                raise Unsupported(
                    "limits of the space used or free need API 1.48 (Docker 28.0), and this "
                    f"engine speaks {api[0]}.{api[1]}, where everything would be removed instead"
                )
            spaces = {"keep-storage": self.reserved_space}
        else:
            spaces = {
                "reserved-space": self.reserved_space,
                "max-used-space": self.max_used_space,
                "min-free-space": self.min_free_space,
            }
        yield from ((name, str(value)) for name, value in spaces.items() if value)

    def _filters(self) -> dict[str, list[str]]:
        # Values become part of an expression: quoted, they may hold anything (Go reads JSON's
        # quotes).
        found = {
            name: [json.dumps(value, ensure_ascii=False)] if name in VALUED else []
            for name, value in self.filters.items()
        }
        if self.keep:
            # A duration is the one form that all engines read.
            found["until"] = [f"{self.keep // timedelta(milliseconds=1)}ms"]
        return found


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went: the records' ids, and the bytes that were freed."""

    ids: tuple[str, ...] = ()
    reclaimed: int = 0


def read_pruned(found: Any) -> Pruned:
    """The answer to POST /build/prune, where nothing is null. Raises EngineError."""
    try:
        return Pruned(tuple(found["CachesDeleted"] or ()), int(found["SpaceReclaimed"]))
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError("The engine's answer to a prune does not say what went.") from error


def _check(name: str, value: str) -> None:
    if name in USELESS:
        raise ValueError(f"The filter {name} is of no use: {USELESS[name]}.")
    if name not in VALUED | BARE:
        raise ValueError(f"There is no filter {name}: there are {sorted(VALUED | BARE)}.")
    if bool(value) != (name in VALUED):
        need = "needs a value" if name in VALUED else "takes no value"
        raise ValueError(f"The filter {name} {need}.")
