"""BuildCachePrune: what the workers and the source cache hold, freed once or by a schedule."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from imagewright.api.buildstatus import Phase
from imagewright.api.condition import Condition
from imagewright.api.imagebuild import Metadata
from imagewright.api.prunetext import (
    Description,
    Duration,
    RecordId,
    Schedule,
    TimeZone,
    WorkerName,
)
from imagewright.api.rule import Model, Rule, list_type
from imagewright.api.text import PoolName, Quantity

BUILD_CACHE, SOURCE_CACHE = "buildCache", "sourceCache"
Include = Literal["buildCache", "sourceCache"]
RecordType = Literal[
    "internal", "frontend", "source.local", "source.git.checkout", "exec.cachemount", "regular"
]
SET = dict(list_type("set"))
TTL = Annotated[int, Field(ge=0, le=315360000)]


class Filters(Model):
    """Which records of build caches may go: all that match every field that is given."""

    type: Annotated[list[RecordType], Field(max_length=6)] = Field(
        default=[], description="Kinds of records; any of these.", json_schema_extra=SET
    )
    id: Annotated[list[RecordId], Field(max_length=8)] = Field(
        default=[],
        description="Parts of records' ids; any of these. '^' pins the beginning, '$' the end.",
        json_schema_extra=SET,
    )
    description: Annotated[list[Description], Field(max_length=8)] = Field(
        default=[],
        description="Whole descriptions of records, word for word; any of these.",
        json_schema_extra=SET,
    )
    until: Duration | None = Field(
        None, description="Spare what was used more recently: keepDuration by the engine's name."
    )


class BuildCachePruneSpec(Model):
    """What may go, from where, and when."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.keepDuration) || !has(self.filters) || !has(self.filters.until)",
            lambda spec: spec.keep_duration is None or spec.filters.until is None,
            "spec.filters.until and spec.keepDuration mean the same: give one of them.",
        ),
        Rule(
            "!has(self.timeZone) || has(self.schedule)",
            lambda spec: spec.time_zone is None or spec.schedule is not None,
            "spec.timeZone is that of spec.schedule: give a schedule, or leave out the time zone.",
        ),
        Rule(
            "!has(self.ttlSecondsAfterFinished) || !has(self.schedule)",
            lambda spec: spec.ttl_seconds_after_finished is None or spec.schedule is None,
            "A prune with spec.schedule never finishes: leave out spec.ttlSecondsAfterFinished.",
        ),
    )

    pools: Annotated[list[PoolName], Field(max_length=64)] = Field(
        default=[],
        description="Pools whose workers are pruned; all of them where empty.",
        json_schema_extra=SET,
    )
    workers: Annotated[list[WorkerName], Field(max_length=64)] = Field(
        default=[],
        description="Workers that are pruned, by the names that status.targets shows; all of them "
        "where empty.",
        json_schema_extra=SET,
    )
    include: Annotated[list[Include], Field(min_length=1, max_length=2)] = Field(
        default=["buildCache", "sourceCache"],
        description="Kinds of caches: those of the workers, and the operator's own of fetched "
        "sources, which is in no pool: it is pruned where neither pools nor workers are named.",
        json_schema_extra=SET,
    )
    all: bool = Field(
        default=False,
        description="Also internal records, frontends, and what images of an engine hold.",
    )
    filters: Filters = Field(
        default=Filters(), description="Which records may go: all that match every field."
    )
    keep_duration: Duration | None = Field(
        None, description="Spare what was used more recently, such as 48h."
    )
    reserved_space: Quantity | None = Field(
        None, description="Leave this much, such as 10Gi: nothing goes below it."
    )
    max_used_space: Quantity | None = Field(
        None, description="Free until no more than this is used, the least used first."
    )
    min_free_space: Quantity | None = Field(
        None, description="Free until the worker's disk has this much free, the least used first."
    )
    dry_run: bool = Field(
        default=False, description="Free nothing: say what would go, as well as can be known."
    )
    schedule: Schedule | None = Field(
        None,
        description="When to prune, again and again, as cron writes it, such as '0 3 * * *' or "
        "@daily; once, now, where unset.",
    )
    time_zone: TimeZone | None = Field(
        None, description="That of the schedule, such as Europe/Berlin; UTC where unset."
    )
    suspend: bool = Field(default=False, description="Do not start; stop if running.")
    ttl_seconds_after_finished: TTL | None = Field(
        None, description="Seconds after its end at which the object is deleted; unset: kept."
    )


class TargetReport(Model):
    """What became of one cache."""

    pool: str = Field(description="The worker's pool; empty for the source cache.")
    worker: str = Field(description="The worker; empty for the source cache.")
    kind: str = Field(description="Of the cache: buildkit, engine or sources.")
    reclaimed_bytes: int = Field(description="Bytes it gave back; in a dry run, would give back.")
    caches_deleted: int = Field(description="Records that went; in a dry run, would go.")
    used_bytes_before: int | None = Field(None, description="Bytes it held before.")
    used_bytes_after: int | None = Field(None, description="Bytes it held afterwards.")
    message: str | None = Field(None, description="What went wrong there, or is to be known.")


class BuildCachePruneStatus(Model):
    """What is true of the prune now. A field of a newer version is left alone."""

    model_config = {**Model.model_config, "extra": "ignore"}

    observed_generation: int = Field(
        -1, description="The metadata.generation that this status speaks of."
    )
    phase: Phase | None = Field(None, description="A summary for people; wait on conditions.")
    conditions: list[Condition] = Field(
        default=[],
        description="Succeeded, Complete, Ready; Reconciling and Stalled while they are true.",
        json_schema_extra=dict(list_type("map", "type")),
    )
    reclaimed_bytes: int | None = Field(
        None, description="Bytes that all caches gave back in the last run."
    )
    caches_deleted: int | None = Field(None, description="Records that went in the last run.")
    cache_ids: list[str] | None = Field(
        None,
        alias="cacheIDs",
        description="Ids of the first 50 of them.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    targets: list[TargetReport] | None = Field(
        None,
        description="What became of each cache in the last run; those that failed come first.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    last_schedule_time: datetime | None = Field(
        None, description="The time of the schedule that the last run was for."
    )
    next_schedule_time: datetime | None = Field(
        None, description="The time of the schedule that the next run is for."
    )
    start_time: datetime | None = Field(None, description="When the last run began.")
    completion_time: datetime | None = Field(None, description="When it ended.")


class BuildCachePrune(Model):
    """One object of the kind, as the API server stores it."""

    api_version: Literal["imagewright.dev/v1alpha1"] = "imagewright.dev/v1alpha1"
    kind: Literal["BuildCachePrune"] = "BuildCachePrune"
    metadata: Metadata = Metadata()
    spec: BuildCachePruneSpec = BuildCachePruneSpec()
    status: BuildCachePruneStatus = BuildCachePruneStatus.model_construct()

    @classmethod
    def parse(cls, body: Any) -> "BuildCachePrune":
        """The object in `body`. Raises ValidationError, a sentence for each fault."""
        return cls.model_validate(body)
