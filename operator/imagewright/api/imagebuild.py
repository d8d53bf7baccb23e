"""ImageBuild: one image build, from source to pushed names."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from imagewright.api.condition import Condition
from imagewright.api.rule import Model, Rule, list_type
from imagewright.api.text import (
    ArgumentName,
    ContextDir,
    DockerfilePath,
    GitUrl,
    HttpUrl,
    ImageName,
    Platform,
    Revision,
    Sha256,
    keys,
)

GROUP, VERSION, PLURAL, KIND = "imagewright.dev", "v1alpha1", "imagebuilds", "ImageBuild"
API_VERSION = f"{GROUP}/{VERSION}"
CANCEL_ANNOTATION = f"{GROUP}/cancel"
"""Cancels like spec.cancel; its value is the reason shown. GitOps self-heal leaves it alone."""
INLINE_BYTES = 256 << 10


class Phase(StrEnum):
    """A summary for people; programs wait on conditions."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    SUSPENDED = "Suspended"


FINAL = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})

FileMap = Annotated[
    dict[str, Annotated[str, Field(max_length=INLINE_BYTES)]],
    Field(max_length=128),
    Rule(
        "self.all(path, path != '' && !path.startsWith('/') && !path.endsWith('/') && "
        "!path.split('/').exists(part, part in ['', '.', '..']))",
        lambda files: all(
            path and not {"", ".", ".."}.intersection(path.split("/")) for path in files
        ),
        "A file's path is relative and plain, without '.', '..' or empty parts: write Dockerfile "
        "or src/main.c.",
    ),
    Rule(
        f"self.map(path, size(self[path])).sum() <= {INLINE_BYTES}",
        lambda files: sum(len(text) for text in files.values()) <= INLINE_BYTES,
        "Inline files hold 256 KiB in all: put larger sources into git or behind an http url.",
    ),
]
Words = Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=128)]
Labels = Annotated[
    Words, keys(r"^[^\s=]+$", "A label's key is one word, such as org.opencontainers.image.title.")
]
Annotations = Annotated[
    Words,
    keys(r"^[^\s=]+$", "An annotation's key is one word, such as org.opencontainers.image.url."),
]


class InlineSource(Model):
    """Files that stand in the object itself."""

    files: FileMap = Field(description="Relative path to text; 256 KiB in all.")


class GitSource(Model):
    """A git repository, fetched by the worker."""

    url: GitUrl = Field(description="Of the repository, over https, http or git.")
    revision: Revision | None = Field(
        None,
        description="Branch, tag or commit; the default branch where unset. It is resolved to a "
        "commit before the build, which status.source.revision shows.",
    )
    submodules: bool = Field(default=False, description="Fetch submodules too.")


class HttpSource(Model):
    """A tar archive, plain or compressed, or a bare Dockerfile, fetched by the worker."""

    url: HttpUrl = Field(description="Where the archive or Dockerfile is.")
    sha256: Sha256 | None = Field(
        None, description="Of the download, in hex; anything else is refused. Best always given."
    )


class Source(Model):
    """Where the build context comes from."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.inline), has(self.git), has(self.http)].filter(given, given).size() == 1",
            lambda source: (
                sum(part is not None for part in (source.inline, source.git, source.http)) == 1
            ),
            "A build has one source: give exactly one of spec.source.inline, spec.source.git and "
            "spec.source.http.",
        ),
    )

    inline: InlineSource | None = Field(None, description="Files that stand in the object itself.")
    git: GitSource | None = Field(None, description="A git repository, fetched by the worker.")
    http: HttpSource | None = Field(
        None, description="A tar archive or a bare Dockerfile behind a URL, fetched by the worker."
    )


class BuildArg(Model):
    """One --build-arg."""

    name: ArgumentName = Field(description="As ARG names it in the Dockerfile.")
    value: Annotated[str, Field(max_length=32768)] = Field(
        "", description="Ends up in the image's history: never a secret."
    )


class Cache(Model):
    """How the build uses what earlier ones left."""

    no_cache: bool = Field(default=False, description="Run every step again.")


class ImageBuildSpec(Model):
    """What to build, and what becomes of it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.dockerfileInline) || self.dockerfile == 'Dockerfile'",
            lambda spec: spec.dockerfile_inline is None or spec.dockerfile == "Dockerfile",
            "spec.dockerfileInline stands instead of a file: leave out spec.dockerfile.",
        ),
    )

    source: Source = Field(description="Where the build context comes from: exactly one kind.")
    context_dir: ContextDir = Field(
        "", description="The folder of the source that is the build context."
    )
    dockerfile: DockerfilePath = Field(
        "Dockerfile", description="The Dockerfile's path inside contextDir."
    )
    dockerfile_inline: Annotated[str, Field(min_length=1, max_length=INLINE_BYTES)] | None = Field(
        None, description="The Dockerfile's text, instead of a file."
    )
    target: Annotated[str, Field(max_length=256)] = Field(
        "", description="The stage to build; the last one where unset."
    )
    build_args: Annotated[list[BuildArg], Field(max_length=256)] = Field(
        default=[], description="Values for ARG.", json_schema_extra=dict(list_type("map", "name"))
    )
    images: Annotated[list[ImageName], Field(max_length=32)] = Field(
        default=[],
        description="Names to push the image under, in order; empty builds only.",
        json_schema_extra=dict(list_type("set")),
    )
    labels: Labels = Field(default={}, description="Labels of the image's configuration.")
    annotations: Annotations = Field(default={}, description="Annotations of the image manifest.")
    platforms: Annotated[list[Platform], Field(max_length=16)] = Field(
        default=[],
        description="Platforms to build for, such as linux/arm64; the worker's own where empty.",
        json_schema_extra=dict(list_type("set")),
    )
    pull: bool = Field(default=False, description="Ask the registry for newer base images.")
    cache: Cache = Field(
        default=Cache(no_cache=False), description="How the build uses what earlier ones left."
    )
    network: Literal["default", "none"] = Field(
        "default", description="What RUN steps see of the network."
    )
    active_deadline_seconds: Annotated[int, Field(ge=1, le=604800)] = Field(
        3600, description="From the start of the first attempt; then the build is stopped."
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315360000)] | None = Field(
        None, description="Seconds after its end at which the object is deleted; unset: kept."
    )
    suspend: bool = Field(default=False, description="Do not start; stop if running.")
    cancel: bool = Field(
        default=False, description="End the build for good; the object stays as a record."
    )
    rebuild_token: Annotated[str, Field(max_length=256)] = Field(
        "", description="Any change of it starts a new run of the same inputs."
    )


class Claim(Model):
    """Who builds it now."""

    holder: str = Field(description="The operator that runs the build.")
    worker: str = Field(description="The worker it runs on.")
    ref: str = Field(description="The build's id on that worker.")


class PushedImage(Model):
    """One name of the image."""

    name: str = Field(description="Registry and repository.")
    tag: str = Field(description="The tag.")
    digest: str = Field(description="Of the manifest or index that the name now stands for.")
    reference: str = Field(description="Name and digest: the same image for ever.")
    state: str = Field(description="Pushed.")


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
        description="Succeeded, Complete, Ready; Reconciling and Stalled while they are true.",
        json_schema_extra=dict(list_type("map", "type")),
    )
    attempt: int | None = Field(None, description="Attempts begun in this run, from 1.")
    claim: Claim | None = Field(None, description="Who builds it now.")
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
    last_success: LastSuccess | None = Field(None, description="The last run that succeeded.")


class Metadata(Model):
    """What we read of an object's metadata."""

    model_config = {**Model.model_config, "extra": "ignore"}

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 1
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    annotations: dict[str, str] = {}


class ImageBuild(Model):
    """One object of the kind, as the API server stores it."""

    api_version: Literal["imagewright.dev/v1alpha1"] = "imagewright.dev/v1alpha1"
    kind: Literal["ImageBuild"] = "ImageBuild"
    metadata: Metadata = Metadata()
    spec: ImageBuildSpec
    status: ImageBuildStatus = ImageBuildStatus.model_construct()

    @classmethod
    def parse(cls, body: Any) -> "ImageBuild":
        """The object in `body`. Raises ValidationError, a sentence for each fault."""
        return cls.model_validate(body)
