"""What the operator is told at its start: a YAML file and the environment, read once.

The environment wins: IMAGEWRIGHT_POOL__SLOTS=8 stands over `pool.slots` of the file.
"""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)


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


class PoolSettings(Part):
    """The workers that build."""

    name: str = "default"
    slots: Annotated[int, Field(ge=1, le=1000)] = 4
    workers: Annotated[list[str], Field(min_length=1)] = ["unix:///run/buildkit/buildkitd.sock"]
    tls: TlsSettings | None = None


class RegistrySettings(Part):
    """How registries are spoken to."""

    plain_http: list[str] = []
    """Hosts that are spoken to without TLS, as loopback always is."""
    ca: Path | None = None
    """PEM of an authority that is trusted besides those of the system."""


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

    pool: PoolSettings = PoolSettings()
    registries: RegistrySettings = RegistrySettings()
    sources: SourceSettings = SourceSettings()
    namespaces: list[str] = []
    prunes: bool = True
    """Whether BuildCachePrunes, which are in no namespace, are this operator's to serve."""
    kubeconfig: str = ""
    drain_seconds: Annotated[float, Field(ge=0)] = 25
    resync_seconds: Annotated[float, Field(gt=0)] = 300
    ops: OpsSettings = OpsSettings()
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

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
        given = yaml.safe_load(path.read_text()) if path else {}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is no YAML: {error}.") from error
    if not isinstance(given or {}, dict):
        raise SettingsError(f"{path} must hold keys and values, such as `pool:`.")
    try:
        return Settings(**(given or {}))
    except ValidationError as error:
        raise SettingsError(_sentences(path, error)) from error


def _sentences(path: Path | None, error: ValidationError) -> str:
    where = path or "the environment"
    faults = [
        f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False)
    ]
    return f"{where}: " + "; ".join(faults) + "."
