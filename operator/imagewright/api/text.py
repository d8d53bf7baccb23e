"""The texts that users write in a spec: their grammar, and the sentence for each mistake."""

import re
from typing import Annotated

from pydantic import Field

from imagewright.api.rule import Rule

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9]*:[a-fA-F0-9:]*\])(?::[0-9]+)?"
_WORD = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
IMAGE = rf"^(?:{_HOST}/)?{_WORD}(?:/{_WORD})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?$"
"""[registry/]repository[:tag], the grammar of the distribution project's reference package."""
_LOWER = r"^(?:[a-zA-Z0-9.-]*[.:\]][a-zA-Z0-9.:\]-]*/|localhost/)?[^A-Z]+(?::[A-Za-z0-9_.-]+)?$"
_REVISION = r"^[A-Za-z0-9_./@+-]+$"
_ARGUMENT = r"^[A-Za-z_][A-Za-z0-9_]*$"
_PLATFORM = r"^[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9.]+)?$"
_GIT_URL = (
    r"^(?:(?:https?|git|ssh)://[^\s?#-][^\s?#]*|"
    r"[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9.-]+:[^\s?#:]+)$"
)
_HTTP_URL = r"^https?://[^\s#]+$"
_CREDENTIALS = r"^(?:https?|git)://[^/@]*@|^ssh://[^/@]*:[^/@]*@"
_OBJECT = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_ENTRY = r"^[-._a-zA-Z0-9]+$"
# At most 10^18 - 1 bytes, so that any size fits the 64-bit numbers of every daemon.
_QUANTITY = r"^(?:[0-9]{1,18}|[0-9]{1,6}(?:k|[MGT]|[KMGT]i)|[0-9]{1,3}Pi?)$"
_SOURCE_IMAGE = IMAGE[:-1] + r"(?:@sha256:[a-f0-9]{64})?$"
RESERVED_ARGUMENTS = ("BUILDKIT_SYNTAX", "BUILDKIT_CACHE_MOUNT_NS")


def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern as RE2, and so CEL, reads it: `$` is the very end, never before a newline."""
    return re.compile(re.sub(r"\$\Z", r"\\Z", pattern), re.ASCII)


def matches(pattern: str, message: str) -> Rule:
    """A rule that a text must match, by a pattern of RE2's."""
    search = compiled(pattern).search
    return Rule(f"self.matches({_quoted(pattern)})", lambda v: bool(search(v)), message)


def _lacks(pattern: str, message: str) -> Rule:
    search = compiled(pattern).search
    return Rule(f"!self.matches({_quoted(pattern)})", lambda v: not search(v), message)


def _quoted(pattern: str) -> str:
    return "'" + pattern.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _inside(name: str, example: str) -> Rule:
    return Rule(
        "!self.startsWith('/') && !self.split('/').exists(part, part == '..')",
        lambda path: not path.startswith("/") and ".." not in path.split("/"),
        f"{name} stays inside the source: write a relative path without '..', such as {example}.",
    )


def keys(pattern: str, message: str) -> Rule:
    """A rule that every key of a map must match."""
    search = compiled(pattern).search
    return Rule(
        f"self.all(key, key.matches({_quoted(pattern)}))",
        lambda mapping: all(search(key) for key in mapping),
        message,
    )


ImageName = Annotated[
    str,
    Field(min_length=1, max_length=512),
    Rule(
        "!self.contains('@')",
        lambda name: "@" not in name,
        "A name to push carries a tag, not a digest: leave out '@' and what follows it, "
        "such as registry.example/app:1.2.",
    ),
    _lacks(
        r"[,=\s]",
        "An image name holds no comma, '=' or space: give each name as an item of its own in "
        "spec.images.",
    ),
    matches(
        _LOWER,
        "A repository is written in lower case, only its tag may hold capitals: write "
        "registry.example/app:1.2.",
    ),
    matches(
        IMAGE,
        "This is no image name: write [registry/]repository[:tag], such as "
        "registry.example/app:1.2.",
    ),
]
ContextDir = Annotated[str, Field(max_length=1024), _inside("spec.contextDir", "services/api")]
DockerfilePath = Annotated[
    str,
    Field(min_length=1, max_length=1024),
    _inside("spec.dockerfile", "docker/Dockerfile"),
]
Revision = Annotated[
    str,
    Field(min_length=1, max_length=256),
    Rule(
        "!self.startsWith('-')",
        lambda revision: not revision.startswith("-"),
        "A revision is the name of a branch or tag, or a commit: it may not begin with '-'.",
    ),
    Rule(
        f"self.matches({_quoted(_REVISION)}) && !self.contains('..')",
        lambda revision: bool(compiled(_REVISION).search(revision)) and ".." not in revision,
        "A revision is the name of a branch or tag, or a commit: letters, digits and ._/@+- "
        "without '..', such as main, v1.2 or a full commit id.",
    ),
]
NO_CREDENTIALS = _lacks(
    _CREDENTIALS, "A URL carries no user or password: everybody who may read the object reads it."
)
GitUrl = Annotated[
    str,
    Field(max_length=2048),
    NO_CREDENTIALS,
    matches(
        _GIT_URL,
        "A git url begins with https://, http://, git:// or ssh://, or is git@host:path, and ends "
        "at the repository: the revision goes into spec.source.git.revision, a folder into "
        "spec.contextDir.",
    ),
]
HttpUrl = Annotated[
    str,
    Field(max_length=2048),
    NO_CREDENTIALS,
    matches(_HTTP_URL, "An http source is one URL that begins with https:// or http://."),
]
Sha256 = Annotated[
    str,
    Field(max_length=71),
    matches(
        r"^[a-f0-9]{64}$",
        "A sha256 is 64 digits in lower-case hex, as sha256sum prints it, without 'sha256:'.",
    ),
]
ArgumentName = Annotated[
    str,
    Field(min_length=1, max_length=256),
    matches(
        _ARGUMENT,
        "A build argument is named like a variable: letters, digits and '_', not a digit first.",
    ),
    Rule(
        f"!(self in {list(RESERVED_ARGUMENTS)!r})",
        lambda name: name not in RESERVED_ARGUMENTS,
        "BUILDKIT_SYNTAX and BUILDKIT_CACHE_MOUNT_NS belong to the operator: they choose the "
        "program that reads the Dockerfile and whose cache it sees.",
    ),
]
Platform = Annotated[
    str,
    Field(min_length=3, max_length=64),
    matches(_PLATFORM, "A platform is written os/arch or os/arch/variant, such as linux/arm64."),
]
ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matches(_OBJECT, "This is no name of an object: lower-case letters, digits, '-' and '.'."),
]
EntryName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matches(_ENTRY, "This is no key of an entry: letters, digits, '-', '_' and '.'."),
]
MountId = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matches(_ENTRY, "This is no id of a mount: letters, digits, '-', '_' and '.'."),
]
SourceImage = Annotated[
    str,
    Field(min_length=1, max_length=512),
    matches(
        _SOURCE_IMAGE,
        "This is no image name: write [registry/]repository[:tag][@sha256:...] in lower case.",
    ),
]
HostName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matches(
        rf"^{_LABEL}(?:\.{_LABEL})*$",
        "This is no host name: letters, digits and '-', with dots between its parts.",
    ),
]
IpAddress = Annotated[
    str,
    Field(min_length=2, max_length=45),
    matches(r"^(?:[0-9a-fA-F.:]+|host-gateway)$", "This is no IP address, such as 10.0.0.7."),
]
Quantity = Annotated[
    str,
    Field(min_length=1, max_length=24),
    matches(_QUANTITY, "This is no size: write bytes, or such as 512Mi, 10Gi or 1500M."),
]
PoolName = Annotated[
    str,
    Field(min_length=1, max_length=63),
    matches(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "This is no name of a pool: lower-case letters, digits and '-'.",
    ),
]
