"""All that a decision about a prune may look at, gathered once before it is made."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo

from imagewright.api.buildcacheprune import BuildCachePrune
from imagewright.domain.facts import Closing
from imagewright.domain.prune import Swept
from imagewright.domain.schedule import InvalidScheduleError, Schedule


@dataclass(frozen=True, slots=True)
class Sweep:
    """What this process does for a prune, for that generation: `results` is None while it runs."""

    generation: int
    results: tuple[Swept, ...] | None = None


@dataclass(frozen=True, slots=True)
class PruneFacts:
    """Everything seen before deciding. `prune` is None where the object is gone.

    `zones` holds the time zone of the schedule by its name, or None where there is no such zone.
    """

    prune: BuildCachePrune | None
    now: datetime
    zones: Mapping[str, tzinfo | None]
    sweep: Sweep | None = None
    uid: str = ""
    closing: Closing = Closing.OPEN

    @property
    def existing(self) -> BuildCachePrune:
        """The prune, for rules that come after the one that looks for a missing one."""
        if self.prune is None:
            raise LookupError("The rule about prunes that are gone comes first.")
        return self.prune

    @property
    def same_generation(self) -> bool:
        """The status speaks of what the spec asks for now."""
        return self.existing.status.observed_generation == self.existing.metadata.generation

    @property
    def results(self) -> tuple[Swept, ...] | None:
        """What the sweep for this generation came to; None where it is not over."""
        sweep = self.sweep
        ours = sweep is not None and sweep.generation == self.existing.metadata.generation
        return sweep.results if sweep and ours else None

    @property
    def schedule(self) -> Schedule | None:
        """The schedule; None where it prunes once. Raises InvalidScheduleError."""
        spec = self.existing.spec
        if spec.schedule is None:
            return None
        name = zone_name(self.existing)
        zone = self.zones.get(name)
        if zone is None:
            raise InvalidScheduleError(
                f"spec.timeZone {name!r} is no time zone that the operator knows: write a name "
                "such as Europe/Berlin or UTC."
            )
        return Schedule(spec.schedule, zone)


def zone_name(prune: BuildCachePrune) -> str:
    """The name of the time zone that the schedule is in."""
    return prune.spec.time_zone or "UTC"
