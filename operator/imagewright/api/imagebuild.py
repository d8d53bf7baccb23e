"""ImageBuild: one image build, from source to pushed names."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from imagewright.api.buildstatus import ImageBuildStatus
from imagewright.api.option import (
    MOUNTS,
    Attestations,
    BuildArg,
    Cache,
    ExtraHost,
    Limits,
    Mount,
    Output,
    RegistryAuth,
    Ulimit,
)
from imagewright.api.rule import Model, Rule, list_type
from imagewright.api.source import INLINE_BYTES, Source
from imagewright.api.text import (
    ContextDir,
    DockerfilePath,
    ImageName,
    ObjectName,
    Platform,
    PoolName,
    Quantity,
    keys,
)

GROUP, VERSION, PLURAL, KIND = "imagewright.dev", "v1alpha1", "imagebuilds", "ImageBuild"
API_VERSION = f"{GROUP}/{VERSION}"
CANCEL_ANNOTATION = f"{GROUP}/cancel"
"""Cancels like spec.cancel; its value is the reason shown. GitOps self-heal leaves it alone."""
Words = Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=128)]
Labels = Annotated[
    Words, keys(r"^[^\s=]+$", "A label's key is one word, such as org.opencontainers.image.title.")
]
Annotations = Annotated[
    Words,
    keys(r"^[^\s=]+$", "An annotation's key is one word, such as org.opencontainers.image.url."),
]


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
    builder: Literal["buildkit", "classic"] = Field(
        "buildkit", description="BuildKit, or the classic builder of a Docker Engine."
    )
    pool: PoolName = Field("default", description="The workers to build on, by the pool's name.")
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
    secrets: Annotated[list[Mount], Field(max_length=64)] = Field(
        default=[],
        description="Secrets that a RUN --mount=type=secret may see.",
        json_schema_extra=MOUNTS,
    )
    ssh: Annotated[list[Mount], Field(max_length=16)] = Field(
        default=[],
        description="Private keys that a RUN --mount=type=ssh may use, but never see.",
        json_schema_extra=MOUNTS,
    )
    registry_auth: Annotated[list[RegistryAuth], Field(max_length=16)] = Field(
        default=[],
        description="Who the build is in registries; the first that knows a registry counts.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    service_account_name: ObjectName | None = Field(
        None, description="Its imagePullSecrets count too, after registryAuth."
    )
    pull: bool = Field(default=False, description="Ask the registry for newer base images.")
    cache: Cache = Field(
        default=Cache(no_cache=False), description="How the build uses what earlier ones left."
    )
    squash: bool = Field(
        default=False, description="Merge the layers above the base image into one."
    )
    network: Literal["default", "none", "host"] = Field(
        "default",
        description="What RUN steps see of the network; host only where the pool allows it.",
    )
    extra_hosts: Annotated[list[ExtraHost], Field(max_length=64)] = Field(
        default=[],
        description="Further lines of /etc/hosts for RUN.",
        json_schema_extra=dict(list_type("map", "hostname")),
    )
    shm_size: Quantity | None = Field(None, description="Bytes of /dev/shm for RUN, such as 64Mi.")
    ulimits: Annotated[list[Ulimit], Field(max_length=32)] = Field(
        default=[],
        description="Limits of the processes of RUN.",
        json_schema_extra=dict(list_type("map", "name")),
    )
    limits: Limits | None = Field(None, description="What the steps of a classic build may use.")
    attestations: Attestations = Field(
        default=Attestations(provenance="none"),
        description="What is attached to the image about how it came to be.",
    )
    output: Output = Field(
        default=Output(compression="gzip"), description="The form of the pushed image."
    )
    active_deadline_seconds: Annotated[int, Field(ge=1, le=604800)] = Field(
        3600, description="From the start of the first attempt; then the build is stopped."
    )
    backoff_limit: Annotated[int, Field(ge=0, le=10)] = Field(
        3,
        description="How often it is tried again after an outage; what you must mend never is.",
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315360000)] | None = Field(
        None, description="Seconds after its end at which the object is deleted; unset: kept."
    )
    priority: Annotated[int, Field(ge=-1000, le=1000)] = Field(
        0, description="Higher goes first among the builds of the same namespace."
    )
    suspend: bool = Field(
        default=False, description="Do not start, nor stand in the queue; stop if running."
    )
    cancel: bool = Field(
        default=False, description="End the build for good; the object stays as a record."
    )
    rebuild_token: Annotated[str, Field(max_length=256)] = Field(
        "", description="Any change of it starts a new run of the same inputs."
    )


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
