"""The newest we know of every object that is not over, from the watch, the list and our writes."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import structlog
from pydantic import ValidationError

from imagewright.api.buildcacheprune import BuildCachePrune
from imagewright.api.buildstatus import FINAL, Phase
from imagewright.api.condition import Condition
from imagewright.api.imagebuild import ImageBuild, Metadata
from imagewright.ports import Body

log = structlog.get_logger("store")
REMEMBERED = 1024
"""Objects that are over and whose last version is remembered, to know a late event of theirs."""
TOLD = 4
"""Faults of an object that is not understood, as many as are told."""


class Status(Protocol):
    """What is said of an object, as far as it is read here."""

    @property
    def observed_generation(self) -> int:
        """The generation that it speaks of."""
        ...

    @property
    def phase(self) -> Phase | None:
        """A summary."""
        ...

    @property
    def conditions(self) -> list[Condition]:
        """Its conditions."""
        ...


class Object(Protocol):
    """One object of a kind."""

    @property
    def status(self) -> Status:
        """Its status."""
        ...

    @property
    def metadata(self) -> Metadata:
        """Its metadata, as far as it is read."""
        ...


ObjectT = TypeVar("ObjectT", bound=Object)


@dataclass(frozen=True, slots=True)
class Kind(Generic[ObjectT]):
    """How the bodies of a kind are read, and when nothing can happen to one but an edit."""

    parse: Callable[[Body], ObjectT]
    settled: Callable[[Body], bool]


class Misread(Exception):
    """An object that is not understood. The text says why, without what stands in the object."""

    def __init__(self, message: str, metadata: Metadata, conditions: list[Condition]) -> None:
        super().__init__(message)
        self.metadata, self.conditions = metadata, conditions


class Store(Generic[ObjectT]):
    """Objects by uid. An older version never replaces a newer one, whichever came last."""

    def __init__(self, kind: Kind[ObjectT], wake: Callable[[str], None]) -> None:
        self._kind, self._wake = kind, wake
        self._objects: dict[str, ObjectT] = {}
        self._over: dict[str, int] = {}
        self._misread: dict[str, Misread] = {}

    def get(self, uid: str) -> ObjectT | None:
        """The object, where it exists and is not over for good."""
        return self._objects.get(uid)

    def uids(self) -> frozenset[str]:
        """All that are known, understood or not."""
        return frozenset(self._objects) | frozenset(self._misread)

    def must_be_understood(self, uid: str) -> None:
        """Raises Misread where there is such an object, and it is not."""
        if misread := self._misread.get(uid):
            raise misread.with_traceback(None)

    def wake_all(self) -> None:
        """Wake who looks after each that is known."""
        for uid in tuple(self._objects):
            self._wake(uid)

    def idle(self, body: Body) -> bool:
        """Whether nothing would come of seeing this: over, and not known. For any thread."""
        uid = body["metadata"]["uid"]
        known = uid in self._objects or uid in self._misread
        return not known and self._kind.settled(body)

    def see(self, body: Body) -> bool:
        """Take in a version of an object, and wake who looks after it. True where it was news."""
        if self.idle(body) or not self.keep(body):
            return False
        self._wake(body["metadata"]["uid"])
        return True

    def keep(self, body: Body) -> bool:
        """Take in a version without waking anybody: for the answers to our own writes."""
        uid = body["metadata"]["uid"]
        known = self._objects.get(uid)
        if known is not None and not newer(body, known):
            return False
        if version(body) <= self._over.get(uid, 0):
            return False
        if self._kind.settled(body):
            self._objects.pop(uid, None)
            self._misread.pop(uid, None)
            self._remember(uid, version(body))
            return known is not None
        try:
            self._objects[uid] = self._kind.parse(body)
        except ValidationError as error:
            self._misunderstand(body, error)
            return False
        self._misread.pop(uid, None)
        return True

    def _misunderstand(self, body: Body, error: ValidationError) -> None:
        # The API server checks by the same rules, so the CRD is of another version than we are.
        uid, fault = body["metadata"]["uid"], misread_by(body, error)
        known = uid in self._misread
        self._misread[uid] = fault
        # What was known of it is no longer true: whatever runs for that must end.
        if self._objects.pop(uid, None) is not None or not known:
            log.warning("An object is not understood", uid=uid, fault=str(fault))
            self._wake(uid)

    def _remember(self, uid: str, seen: int) -> None:
        self._over[uid] = seen
        if len(self._over) > REMEMBERED:
            del self._over[next(iter(self._over))]

    def drop(self, uid: str) -> None:
        """The object is gone; a uid never comes back, whatever late answer still names it."""
        self._objects.pop(uid, None)
        self._misread.pop(uid, None)
        self._remember(uid, sys.maxsize)
        self._wake(uid)


def misread_by(body: Body, error: ValidationError) -> Misread:
    """What is wrong with the object, and as much of it as can be read."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    told = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:TOLD]]
    found = (body.get("status") or {}).get("conditions") or []
    try:
        held = [Condition.model_validate(one) for one in found]
    except ValidationError:
        held = []
    return Misread("; ".join(told), Metadata.model_validate(body["metadata"]), held)


def settled(body: Body) -> bool:
    """Ended for its newest generation, and kept for ever: nothing can happen but an edit."""
    status = body.get("status") or {}
    return (
        status.get("phase") in FINAL
        and status.get("observedGeneration") == body["metadata"].get("generation")
        and (body.get("spec") or {}).get("ttlSecondsAfterFinished") is None
    )


def at_rest(body: Body) -> bool:
    """A prune that has ended, and has no next time."""
    return settled(body) and not body["status"].get("nextScheduleTime")


BUILDS = Kind(ImageBuild.parse, settled=settled)
PRUNES = Kind(BuildCachePrune.parse, settled=at_rest)


def newer(body: Body, known: Object) -> bool:
    """Whether a version of the same object comes after the known one."""
    return version(body) > int(known.metadata.resource_version or 0)


def version(body: Body) -> int:
    """The resourceVersion, which grows with every write (Kubernetes 1.35 promises the order)."""
    return int(body["metadata"].get("resourceVersion") or 0)
