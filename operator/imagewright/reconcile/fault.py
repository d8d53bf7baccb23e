"""Faults of our own at one object: told on the object itself, once, until it works again.

What the API server does not answer is no fault: it is an Error of the ports and passes through.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Generic

import structlog

from imagewright.api.buildstatus import FINAL
from imagewright.api.condition import Condition
from imagewright.api.imagebuild import Metadata
from imagewright.domain.conditions import Told, faultless, with_fault
from imagewright.domain.redact import printable, redact
from imagewright.ports import Error
from imagewright.reconcile.store import Misread, Object, ObjectT, Store
from imagewright.reconcile.writer import Writer

log = structlog.get_logger("fault")


class Faults(Generic[ObjectT]):
    """Tells of faults in the condition OperatorError, which goes with the first look without one.

    Only the type of a fault is told, for its text may be anything. On an object that has ended
    nothing is told: its record stands.
    """

    def __init__(
        self, writer: Writer[ObjectT], store: Store[ObjectT], clock: Callable[[], datetime]
    ) -> None:
        self._writer, self._store, self._clock = writer, store, clock

    @asynccontextmanager
    async def told(self, uid: str) -> AsyncIterator[None]:
        """A fault within the context is told on the object, and raised all the same.

        An object that is not understood is one too. Raises Misread for it, at the end; Conflict
        where somebody else wrote first.
        """
        try:
            yield
            self._store.must_be_understood(uid)
            await self._told_no_more(uid)
        except Error:
            raise
        except Exception as error:
            await self._tell(uid, error)
            raise

    async def _told_no_more(self, uid: str) -> None:
        known = self._store.get(uid)
        if known is None:
            return
        held = faultless(known.status.conditions)
        if len(held) < len(known.status.conditions):
            await self._write(known.metadata, held)

    async def _write(self, meta: Metadata, held: Sequence[Condition]) -> None:
        dumped = [one.model_dump(mode="json", by_alias=True) for one in held]
        await self._writer.write(meta, {"conditions": dumped})

    async def _tell(self, uid: str, fault: Exception) -> None:
        try:
            found = self._found(uid, fault)
            if found is None:
                return
            meta, before = found
            told = Told(before, meta.generation, self._clock())
            held = with_fault(before, sentence_of(fault), told)
            if held[-1] not in before:
                await self._write(meta, held)
        except Exception as error:  # noqa: BLE001  # it may be the very fault that is told
            # The fault itself is raised; that it could not be told is for our log only.
            log.warning("A fault could not be told on its object", uid=uid, why=repr(error))

    def _found(self, uid: str, fault: Exception) -> tuple[Metadata, Sequence[Condition]] | None:
        """Its metadata and conditions; None where it is gone, or has ended."""
        if isinstance(fault, Misread):
            return fault.metadata, fault.conditions
        known = self._store.get(uid)
        if known is None or ended(known):
            return None
        return known.metadata, known.status.conditions


def ended(known: Object) -> bool:
    """Whether the object has ended as it is written now."""
    told = known.status.observed_generation == known.metadata.generation
    return told and known.status.phase in FINAL


def sentence_of(fault: Exception) -> str:
    """What the object's owner is told."""
    if isinstance(fault, Misread):
        return (
            "The operator does not understand this object; it and the CustomResourceDefinition "
            f"may be of different versions: {redact(printable(str(fault)))}"
        )
    return (
        f"The operator itself failed at this object ({type(fault).__name__}). It tries again by "
        "itself, later each time; its log says more, for a report of this fault."
    )
