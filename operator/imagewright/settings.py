"""What the operator is told at its start: a YAML file and the environment, read once.

The environment wins: IMAGEWRIGHT_OPS__PORT=9090 stands over `ops.port` of the file; a list, such
as IMAGEWRIGHT_POOLS, is given as JSON.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import (
    SettingsError as PydanticSettingsError,
)

ENGINE = "docker+"
"""How the address of a Docker Engine begins, such as docker+unix:///run/docker.sock."""


class SettingsError(Exception):
    """The configuration cannot be used; the text says which key, and what to write."""


class Part(BaseModel):
    """A section of the file: camelCase keys, unknown ones refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


class TlsSettings(Part):
    """Files for mutual TLS with the workers, PEM."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""


class RegistrySettings(Part):
    """How registries are spoken to."""

    plain_http: list[str] = []
    """Hosts that are spoken to without TLS, as loopback always is."""
    ca: Path | None = None
    """PEM of an authority that is trusted besides those of the system."""


class ServiceSettings(Part):
    """The Service whose ready Pods are a pool's workers."""

    name: Annotated[str, Field(min_length=1)]
    namespace: Annotated[str, Field(min_length=1)]
    port: Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)] = "buildkit"
    """Of the Pods: its name in the Service, or the number that they listen on."""


class AutoscaleSettings(Part):
    """A StatefulSet of a pool's workers, in their Service's namespace, that follows the work."""

    stateful_set: Annotated[str, Field(min_length=1)]
    min: Annotated[int, Field(ge=0, le=1000)] = 0
    max: Annotated[int, Field(ge=1, le=1000)]
    idle_seconds: Annotated[float, Field(gt=0)] = 600
    """For so long a worker must have been idle before it goes."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max {self.max}: write a max that is not less")
        return self


class PoolSettings(Part):
    """Workers that build, and who may use them for what."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] = (
        "default"
    )
    kind: Literal["buildkit", "docker"] = "buildkit"
    """What the workers are; an address that begins with docker+ is a Docker Engine anyway."""
    slots: Annotated[int, Field(ge=1, le=1000)] = 4
    workers: list[str] = []
    service: ServiceSettings | None = None
    """Instead of addresses: the workers come and go with its Pods."""
    autoscale: AutoscaleSettings | None = None
    tls: TlsSettings | None = None
    platforms: list[str] = []
    networks: list[Literal["default", "none", "host"]] = ["default", "none"]
    namespaces: list[str] = []
    namespace_slots: Annotated[int, Field(ge=1)] | None = None
    """How many slots a namespace may have at once."""
    registries: RegistrySettings | None = None
    """Instead of the operator's own, for what this pool's images are pushed to."""

    @property
    def is_buildkit(self) -> bool:
        """Whether all of its workers are BuildKit daemons."""
        engines = any(address.startswith(ENGINE) for address in self.workers)
        return self.kind == "buildkit" and not engines

    @model_validator(mode="after")
    def _has_workers(self) -> Self:
        if bool(self.workers) == bool(self.service):
            raise ValueError("name its workers, by addresses or by their service, not by both")
        if self.autoscale and not self.service:
            raise ValueError("autoscale needs the service that the new workers are found by")
        return self


class SourceSettings(Part):
    """Where the operator keeps what it fetches by itself."""

    folder: Path = Path("/var/cache/imagewright")
    max_used_space: Annotated[str, Field(pattern=r"^[0-9]+(?:[kMGTPE]|[KMGTPE]i)?$")] = "10Gi"
    max_age_seconds: Annotated[float, Field(gt=0)] = 7 * 86400
    allow_loopback: bool = False
    """Whether a source may be on the operator's own machine: for tests and for the brave."""


class OpsSettings(Part):
    """Where /metrics, /healthz and /readyz listen."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080


class EventSettings(Part):
    """How many Events are posted; failures have as many again for themselves."""

    per_second: Annotated[float, Field(ge=0)] = 5
    burst: Annotated[int, Field(ge=0)] = 50
    """How many at once, after a quiet time; 0 posts none at all."""


class LeaseSettings(Part):
    """The Lease that one of several operators holds: only that one acts, the others stand by."""

    name: Annotated[str, Field(min_length=1)] = "imagewright"
    namespace: Annotated[str, Field(min_length=1)]
    seconds: Annotated[int, Field(ge=3, le=3600)] = 12
    """A leader that is gone is followed after about so long; one that ends properly, at once."""


class GatewaySettings(Part):
    """The front door for clients of BuildKit; clients without a certificate of `ca` stay out."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 1234
    pool: str = "default"
    """Whose workers its clients get."""
    ca: Path
    """PEM of the authority that signs clients' certificates."""
    cert: Path
    key: Path
    waiting: Annotated[int, Field(ge=0)] = 256
    """How many clients may wait for a slot; the next one is refused."""
    waiting_per_tenant: Annotated[int, Field(ge=0)] = 64
    """How many of one organization (O), or of one name (CN) where a certificate has no O."""
    wait_seconds: Annotated[float, Field(gt=0)] = 3600
    idle_seconds: Annotated[float, Field(gt=0)] = 600
    """How long nothing may go either way before a client is asked to go."""
    handshake_seconds: Annotated[float, Field(gt=0)] = 10


class Settings(BaseSettings):
    """All of it, frozen."""

    model_config = SettingsConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        env_prefix="IMAGEWRIGHT_",
        env_nested_delimiter="__",
    )

    pools: list[PoolSettings] = [PoolSettings(workers=["unix:///run/buildkit/buildkitd.sock"])]
    gateway: GatewaySettings | None = None
    registries: RegistrySettings = RegistrySettings()
    sources: SourceSettings = SourceSettings()
    namespaces: list[str] = []
    lease: LeaseSettings | None = None
    """None: this is the only operator of its namespaces."""
    prunes: bool = True
    """Whether BuildCachePrunes, which are in no namespace, are this operator's to serve."""
    kubeconfig: str = ""
    drain_seconds: Annotated[float, Field(ge=0)] = 25
    resync_seconds: Annotated[float, Field(gt=0)] = 300
    stall_seconds: Annotated[float, Field(gt=0)] = 120
    """A build that says nothing for so long, on a worker that does not answer, begins again."""
    ops: OpsSettings = OpsSettings()
    events: EventSettings = EventSettings()
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("pools")
    @classmethod
    def _named_once(cls, pools: list[PoolSettings]) -> list[PoolSettings]:
        names = [pool.name for pool in pools]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two pools are named {twice}: give each a name of its own")
        scaled = [
            f"{pool.service.namespace}/{pool.autoscale.stateful_set}"
            for pool in pools
            if pool.service and pool.autoscale
        ]
        twice = next((name for name in scaled if scaled.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two pools scale the StatefulSet {twice}: leave it to one of them")
        return pools

    @field_validator("gateway")
    @classmethod
    def _of_buildkit(
        cls, gateway: GatewaySettings | None, info: ValidationInfo
    ) -> GatewaySettings | None:
        # Pools that were refused are not there; that is complained of already.
        if gateway is None or "pools" not in info.data:
            return gateway
        fit = [pool.name for pool in info.data["pools"] if pool.is_buildkit]
        if gateway.pool not in fit:
            known = f"name one of these: {', '.join(fit)}" if fit else "there is none: add one"
            raise ValueError(
                f"pool {gateway.pool} is no pool of BuildKit daemons only, and others have no use "
                f"for a gateway; {known}, or leave gateway out"
            )
        return gateway

    @classmethod
    def settings_customise_sources(  # noqa: PLR0913  # the library's signature
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment over the file (which comes as the constructor's arguments)."""
        return env_settings, init_settings


def load_settings(path: Path | None) -> Settings:
    """The settings of the file, if one is named, and the environment. Raises SettingsError."""
    try:
        text = path.read_text() if path else ""
        given, node = yaml.safe_load(text) or {}, yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is no YAML: {error}.") from error
    if not isinstance(given, dict):
        raise SettingsError(f"{path} must hold keys and values, such as `pools:`.")
    try:
        return Settings(**given)
    except (ValidationError, PydanticSettingsError) as error:
        raise SettingsError(_sentences(path, node, error)) from error


def _sentences(
    path: Path | None, node: yaml.Node | None, error: ValidationError | PydanticSettingsError
) -> str:
    if not isinstance(error, ValidationError):
        return f"the environment: {error}."
    faults = []
    for fault in error.errors(include_url=False, include_input=False):
        line = _line(node, fault["loc"])
        key = ".".join(str(part) for part in fault["loc"])
        faults.append(f"line {line}: {key}: {fault['msg']}" if line else f"{key}: {fault['msg']}")
    return f"{path or 'the environment'}: " + "; ".join(faults) + "."


def _line(node: yaml.Node | None, loc: tuple[int | str, ...]) -> int:
    """The line, from 1, of the deepest key of `loc` that the file has; 0 where it has none."""
    line = 0
    for part in loc:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            found = {key.value: (key, value) for key, value in node.value}
            if part not in found:
                break
            key, node = found[part]
            line = key.start_mark.line + 1
        else:
            break
    return line
