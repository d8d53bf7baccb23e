"""What is said of a build: the status of an ImageBuild."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from imagewright.api.condition import Condition
from imagewright.api.rule import Model, list_type


class Phase(StrEnum):
    """A summary for people; programs wait on conditions."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    SUSPENDED = "Suspended"


FINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})


class Claim(Model):
    """Who builds it now."""

    holder: str = Field(description="The operator that runs the build.")
    worker: str = Field(description="The worker it runs on.")
    ref: str = Field(description="The build's id on that worker.")


class QueuePlace(Model):
    """Where it waits."""

    position: int | None = Field(
        None, description="1 goes next; told when it has changed much, at most every 10 seconds."
    )
    reason: str = Field(description="Why it waits: one of the documented reasons.")


class PushedImage(Model):
    """One name of the image."""

    name: str = Field(description="Registry and repository.")
    tag: str = Field(description="The tag.")
    digest: str | None = Field(
        None, description="Of the manifest or index that the name now stands for."
    )
    reference: str | None = Field(None, description="Name and digest: the same image for ever.")
    state: str = Field(
        description="Pushed; NotPushed where the run ended before it; TagOverwritten where "
        "another push took the name before the run ended."
    )


class ResolvedSource(Model):
    """What was really built."""

    revision: str = Field(description="The commit, or the digest of the download.")


class CacheUse(Model):
    """How much of the build was done before."""

    cached_steps: int = Field(description="Steps taken from the cache.")
    total_steps: int = Field(description="Steps of the Dockerfile.")


class ProgressReport(Model):
    """How far a running build is."""

    percent: int = Field(description="0 to 100; never falls within an attempt.")
    step: str = Field(description="What runs now.")


class Failure(Model):
    """Why it failed."""

    reason: str = Field(description="One of the documented reasons.")
    message: str = Field(description="A sentence: what, where, what to do.")
    step: str | None = Field(None, description="The step that failed.")
    line: int | None = Field(None, description="Its line in the Dockerfile, from 1.")
    exit_code: int | None = Field(None, description="Of the step's process; 128 + n for signal n.")
    retryable: bool = Field(description="The same object may succeed when it is tried again.")


class LastAttempt(Model):
    """The last attempt that an outage ended."""

    number: int = Field(description="Which attempt of the run, from 1.")
    reason: str = Field(description="One of the documented reasons.")
    message: str = Field(description="A sentence: what, where, what to do.")
    step: str | None = Field(None, description="The step that ran then.")
    log_tail: str | None = Field(
        None, description="The last lines that the attempt printed, 1 KiB at most."
    )


class LastSuccess(Model):
    """The last run that succeeded."""

    generation: int = Field(description="metadata.generation it was built from.")
    image_digest: str = Field(description="Its digest; empty where nothing was pushed.")
    time: datetime = Field(description="When it ended.")


class ImageBuildStatus(Model):
    """What is true of the build now. A field of a newer version is left alone."""

    model_config = {**Model.model_config, "extra": "ignore"}

    observed_generation: int = Field(
        -1, description="The metadata.generation that this status speaks of."
    )
    inputs_digest: str | None = Field(
        None, description="Over the fields of the spec that decide the image."
    )
    phase: Phase | None = Field(None, description="A summary for people; wait on conditions.")
    conditions: list[Condition] = Field(
        default=[],
        description="Succeeded, Complete, Ready; the others while they are true.",
        json_schema_extra=dict(list_type("map", "type")),
    )
    attempt: int | None = Field(None, description="Attempts begun in this run, from 1.")
    claim: Claim | None = Field(None, description="Who builds it now.")
    queue: QueuePlace | None = Field(None, description="Where it waits for a slot.")
    start_time: datetime | None = Field(None, description="When the first attempt began.")
    completion_time: datetime | None = Field(None, description="When it ended.")
    image_id: str | None = Field(
        None, alias="imageID", description="Digest of the image's configuration."
    )
    image_digest: str | None = Field(None, description="Digest of the image's manifest or index.")
    images: list[PushedImage] | None = Field(
        None,
        description="The names, in the order of spec.images.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    source: ResolvedSource | None = Field(None, description="What was really built.")
    cache: CacheUse | None = Field(None, description="How much of it was done before.")
    progress: ProgressReport | None = Field(None, description="How far it is, while it runs.")
    failure: Failure | None = Field(None, description="Why it failed.")
    log_tail: str | None = Field(
        None, description="The last lines that the failed step printed, 4 KiB at most."
    )
    last_attempt: LastAttempt | None = Field(
        None, description="The last attempt that an outage ended, until the run itself has ended."
    )
    last_success: LastSuccess | None = Field(None, description="The last run that succeeded.")
