"""The Plan: all that a builder is told."""

from dataclasses import dataclass, field, replace

from imagewright.domain.reference import Reference

BUILDKIT, CLASSIC = "buildkit", "classic"


@dataclass(frozen=True, slots=True)
class Inline:
    """Files by relative path."""

    files: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Git:
    """A repository at `revision` (empty: the default branch); `commit` once it is resolved.

    `secret` names what opens it: a username and password, a token, or a private key for ssh.
    """

    url: str
    revision: str = ""
    submodules: bool = False
    ref: str = ""
    commit: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Http:
    """A download; `sha256` in hex, empty where anything is taken. `secret` names what opens it."""

    url: str
    sha256: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Oci:
    """An image or artifact whose files are the context; `digest` once it is resolved."""

    image: str
    digest: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """A ConfigMap whose entries are the context's files."""

    name: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A folder on this machine."""

    path: str


Source = Inline | Git | Http | Oci | Config | Directory


@dataclass(frozen=True, slots=True)
class Grant:
    """What a RUN may mount under `id`: the entry `key` of the Secret `name`."""

    id: str
    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Value:
    """A build argument that is read elsewhere: the entry `key` of the ConfigMap `name`."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A limit of the processes of RUN; -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class CacheExport:
    """Where steps are left: `ref` in a registry, empty for inline; `mode` is min or max."""

    ref: str
    mode: str


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What the steps of RUN see and may use. Sizes in bytes; `limits` in the engine's words."""

    network: str = "default"
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    limits: dict[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Form:
    """The form of the image: its compression, its times, what is attached to it."""

    compression: str = "gzip"
    source_date_epoch: int | None = None
    rewrite_timestamp: bool = False
    provenance: str = "none"
    sbom: bool = False


@dataclass(frozen=True, slots=True)
class Access:
    """Whose credentials count: Secrets with registry logins, and a ServiceAccount."""

    logins: tuple[str, ...] = ()
    service_account: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build, how, and under which names to push it. It names Secrets, and holds none.

    `values` are build arguments that are still to be read, and then belong to `build_args`.
    """

    source: Source
    context_dir: str = ""
    dockerfile: str = "Dockerfile"
    dockerfile_inline: str = ""
    builder: str = BUILDKIT
    target: str = ""
    build_args: dict[str, str] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    secrets: tuple[Grant, ...] = ()
    ssh: tuple[Grant, ...] = ()
    access: Access = Access()
    pull: bool = False
    no_cache: bool = False
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[CacheExport, ...] = ()
    squash: bool = False
    sandbox: Sandbox = field(default_factory=Sandbox)
    form: Form = Form()

    def at(self, revision: str) -> "Plan":
        """The plan of a retry: its source at the revision that the first attempt resolved."""
        if not revision or self.resolved:
            return self
        if isinstance(self.source, Git):
            return replace(self, source=replace(self.source, ref=revision, commit=revision))
        if isinstance(self.source, Oci):
            return replace(self, source=replace(self.source, digest=revision))
        return self

    @property
    def needs(self) -> bool:
        """Whether something in the cluster must be there before it can be built."""
        granted = bool(self.secrets or self.ssh or self.access != Access())
        read = bool(self.values) or isinstance(self.source, Config)
        return granted or read or bool(self.source_secret)

    @property
    def resolved(self) -> str:
        """What the source is known to stand for: a commit or a digest; empty where it is not."""
        if isinstance(self.source, Git):
            return self.source.commit
        return self.source.digest if isinstance(self.source, Oci) else ""

    @property
    def source_secret(self) -> str:
        """The Secret that opens the source; empty where there is none."""
        return self.source.secret if isinstance(self.source, Git | Http | Oci) else ""


@dataclass(frozen=True, slots=True)
class Order:
    """A plan as a builder gets it: `ref` names the run, `names` are parsed and each there once."""

    ref: str
    plan: Plan
    names: tuple[Reference, ...] = ()
