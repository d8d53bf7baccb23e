"""Where a build's files come from, as a user writes it."""

from typing import Annotated, ClassVar

from pydantic import Field

from imagewright.api.rule import Model, Rule
from imagewright.api.text import GitUrl, HttpUrl, ObjectName, Revision, Sha256, SourceImage

INLINE_BYTES = 256 << 10
KINDS = ("inline", "git", "http", "oci", "configMap")
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


class SecretRef(Model):
    """A Secret in the build's own namespace."""

    name: ObjectName = Field(description="Of the Secret, in the namespace of the build.")


class InlineSource(Model):
    """Files that stand in the object itself."""

    files: FileMap = Field(description="Relative path to text; 256 KiB in all.")


class GitSource(Model):
    """A git repository."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.secretRef) || !(self.url.startsWith('ssh://') || "
            "self.url.matches('^[^/:]+@'))",
            lambda git: (
                git.secret_ref is not None
                or not (git.url.startswith("ssh://") or "@" in git.url.partition(":")[0])
            ),
            "A repository behind ssh needs a key: name a Secret with ssh-privatekey in "
            "spec.source.git.secretRef.",
        ),
    )

    url: GitUrl = Field(description="Of the repository, over https, http, git or ssh.")
    revision: Revision | None = Field(
        None,
        description="Branch, tag or commit; the default branch where unset. It is resolved to a "
        "commit before the build, which status.source.revision shows.",
    )
    submodules: bool = Field(default=False, description="Fetch submodules too.")
    secret_ref: SecretRef | None = Field(
        None,
        description="What opens it: username and password, token, or ssh-privatekey (and, best, "
        "known_hosts).",
    )


class HttpSource(Model):
    """A tar archive, plain or compressed, or a bare Dockerfile."""

    url: HttpUrl = Field(description="Where the archive or Dockerfile is.")
    sha256: Sha256 | None = Field(
        None, description="Of the download, in hex; anything else is refused. Best always given."
    )
    secret_ref: SecretRef | None = Field(
        None, description="What opens it: username and password, or token."
    )


class OciSource(Model):
    """An image, or an OCI artifact with a tar layer, whose files are the context."""

    image: SourceImage = Field(
        description="Its name, with a tag or a digest; resolved to a digest before the build."
    )
    secret_ref: SecretRef | None = Field(
        None, description="A kubernetes.io/dockerconfigjson that opens its registry."
    )


class ConfigMapSource(Model):
    """A ConfigMap whose entries are the files."""

    name: ObjectName = Field(description="Of the ConfigMap, in the namespace of the build.")


class Source(Model):
    """Where the build context comes from."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"[{', '.join(f'has(self.{kind})' for kind in KINDS)}]"
            ".filter(given, given).size() == 1",
            lambda source: (
                sum(
                    part is not None
                    for part in (
                        source.inline,
                        source.git,
                        source.http,
                        source.oci,
                        source.config_map,
                    )
                )
                == 1
            ),
            "A build has one source: give exactly one of inline, git, http, oci and configMap in "
            "spec.source.",
        ),
    )

    inline: InlineSource | None = Field(None, description="Files that stand in the object itself.")
    git: GitSource | None = Field(None, description="A git repository.")
    http: HttpSource | None = Field(
        None, description="A tar archive or a bare Dockerfile behind a URL."
    )
    oci: OciSource | None = Field(
        None, description="An image or OCI artifact whose files are the context."
    )
    config_map: ConfigMapSource | None = Field(
        None, description="A ConfigMap whose entries are the files."
    )
