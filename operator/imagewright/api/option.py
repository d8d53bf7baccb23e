"""How a build is run, as a user writes it: what it may use, and what its steps see."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from imagewright.api.rule import Model, Rule, list_type
from imagewright.api.source import SecretRef
from imagewright.api.text import (
    ArgumentName,
    EntryName,
    HostName,
    IpAddress,
    MountId,
    ObjectName,
    Quantity,
    SourceImage,
)


class ConfigMapKeyRef(Model):
    """One entry of a ConfigMap in the build's own namespace."""

    name: ObjectName = Field(description="Of the ConfigMap.")
    key: EntryName = Field(description="Of its entry.")


class ValueFrom(Model):
    """Where a value is read, at each attempt."""

    config_map_key_ref: ConfigMapKeyRef = Field(description="An entry of a ConfigMap.")


class BuildArg(Model):
    """One --build-arg."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.valueFrom) || self.value == ''",
            lambda arg: arg.value_from is None or not arg.value,
            "A build argument has one value: give value or valueFrom.",
        ),
    )

    name: ArgumentName = Field(description="As ARG names it in the Dockerfile.")
    value: Annotated[str, Field(max_length=32768)] = Field(
        "", description="Ends up in the image's history: never a secret."
    )
    value_from: ValueFrom | None = Field(None, description="Read it elsewhere instead.")


class SecretEntry(SecretRef):
    """One entry of a Secret in the build's own namespace."""

    key: EntryName = Field(description="Of its entry.")


class Mount(Model):
    """What a RUN may mount: --mount=type=secret or type=ssh, by its id."""

    id: MountId = Field(description="As the Dockerfile's --mount names it.")
    secret_ref: SecretEntry = Field(description="The entry that is mounted; never in the image.")


class RegistryAuth(Model):
    """Credentials for registries."""

    secret_ref: SecretRef = Field(description="A kubernetes.io/dockerconfigjson.")


class CacheFrom(Model):
    """Where cached steps may come from."""

    type: Literal["registry"] = Field("registry", description="A registry.")
    ref: SourceImage = Field(description="The image that holds the cache.")


class CacheTo(Model):
    """Where the steps of this build are left for others."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.type == 'registry') == has(self.ref)",
            lambda cache: (cache.type == "registry") == (cache.ref is not None),
            "A cache of type registry is left under a ref of its own; one of type inline lies in "
            "the image and has none.",
        ),
    )

    type: Literal["registry", "inline"] = Field(description="A registry, or the image itself.")
    ref: SourceImage | None = Field(None, description="The image to hold it.")
    mode: Literal["min", "max"] = Field(
        "min", description="Only the steps of the image, or those of all stages."
    )


class Cache(Model):
    """How the build uses what earlier ones left."""

    no_cache: bool = Field(default=False, description="Run every step again.")
    import_from: Annotated[list[CacheFrom], Field(max_length=16)] = Field(
        default=[],
        alias="from",
        description="Further caches to look into, in order.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    export_to: Annotated[list[CacheTo], Field(max_length=4)] = Field(
        default=[],
        alias="to",
        description="Where to leave this build's steps.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    key: Annotated[str, Field(max_length=256)] = Field(
        "",
        description="Builds of one key meet the same worker, where their cache is; the first "
        "image's repository where unset.",
    )


class ExtraHost(Model):
    """A line of /etc/hosts."""

    hostname: HostName = Field(description="The name.")
    ip: IpAddress = Field(description="Its address.")


class Ulimit(Model):
    """One limit of the processes of RUN."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.hard == -1 || (self.soft != -1 && self.soft <= self.hard)",
            lambda limit: limit.hard == -1 or (limit.soft != -1 and limit.soft <= limit.hard),
            "A soft limit is at most the hard one; -1 is unlimited.",
        ),
    )

    name: Annotated[str, Field(pattern=r"^[a-z]+$", max_length=16)] = Field(
        description="As in ulimit: nofile, nproc, core, ..."
    )
    soft: Annotated[int, Field(ge=-1)] = Field(description="What a process may raise.")
    hard: Annotated[int, Field(ge=-1)] = Field(description="What it may not.")


class Limits(Model):
    """What the steps of a classic build may use of the worker."""

    memory: Quantity | None = Field(None, description="Bytes of memory, such as 512Mi.")
    memory_swap: Quantity | None = Field(None, description="Bytes of memory and swap together.")
    cpu_shares: Annotated[int, Field(ge=2, le=262144)] | None = Field(
        None, description="Weight against others; 1024 is usual."
    )
    cpu_period: Annotated[int, Field(ge=1000, le=1000000)] | None = Field(
        None, description="Microseconds of the scheduler's period."
    )
    cpu_quota: Annotated[int, Field(ge=1000)] | None = Field(
        None, description="Microseconds of CPU in each period."
    )
    cpuset_cpus: Annotated[str, Field(pattern=r"^[0-9,-]+$", max_length=256)] | None = Field(
        None, description="CPUs that may be used, such as 0-2,7."
    )
    cpuset_mems: Annotated[str, Field(pattern=r"^[0-9,-]+$", max_length=256)] | None = Field(
        None, description="Memory nodes that may be used."
    )


class Attestations(Model):
    """What is attached to the image about how it came to be."""

    provenance: Literal["none", "min", "max"] = Field(
        "none", description="SLSA provenance; max names build arguments too."
    )
    sbom: bool = Field(default=False, description="A list of the software inside.")


class Output(Model):
    """The form of the pushed image."""

    compression: Literal["gzip", "zstd", "estargz", "uncompressed"] = Field(
        "gzip", description="Of its layers."
    )
    source_date_epoch: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Seconds since 1970 that the image's times say, for equal digests."
    )
    rewrite_timestamp: bool = Field(
        default=False, description="Set the times of files to sourceDateEpoch too."
    )


MOUNTS = dict(list_type("map", "id"))
