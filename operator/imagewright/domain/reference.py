"""Image names, as the container engine's tagger reads them.

The rules are those of the distribution project's reference package: a first part with a dot, a
colon or capitals, or `localhost`, is a registry; without one it is Docker Hub; without a tag it is
`latest`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from imagewright.api.text import IMAGE, compiled

HUB, HUB_NAMESPACE = "docker.io", "library"


class InvalidReference(ValueError):
    """A name that no image can be tagged with; the text says which, and what to write."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A full name: `registry.example:5000/team/app` and `1.2`."""

    registry: str
    repository: str
    tag: str

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}"

    def familiar(self) -> str:
        """The name as people write it: without what Docker Hub implies."""
        if self.registry != HUB:
            return str(self)
        return f"{self.repository.removeprefix(HUB_NAMESPACE + '/')}:{self.tag}"

    def pinned(self, digest: str) -> str:
        """The name that stands for this very image for ever."""
        return f"{self.name}@{digest}"


def parse(text: str) -> Reference:
    """The full name that `text` stands for. Raises InvalidReference."""
    if "@" in text:
        raise InvalidReference(
            f"{text!r} carries a digest: a name to push has a tag only, such as app:1.2."
        )
    if not compiled(IMAGE).search(text):
        raise InvalidReference(
            f"{text!r} is no image name: write [registry/]repository[:tag] in lower case."
        )
    registry, rest = _split(text)
    repository, colon, tag = rest.partition(":")
    if registry == HUB and "/" not in repository:
        repository = f"{HUB_NAMESPACE}/{repository}"
    return Reference(registry, repository, tag if colon else "latest")


def parse_all(texts: Iterable[str]) -> tuple[Reference, ...]:
    """All names in order, each once. Raises InvalidReference for the first that is none."""
    return tuple(dict.fromkeys(parse(text) for text in texts))


def _split(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    is_registry = first == "localhost" or "." in first or ":" in first or first != first.lower()
    if slash and is_registry:
        return ("docker.io" if first == "index.docker.io" else first), rest
    return HUB, text
