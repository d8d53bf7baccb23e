"""Which paths an ignore file leaves out, exactly as BuildKit (moby/patternmatcher) decides it."""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from imagewright.clients.buildkit.globs import Match, PatternError, compile_glob

SPECIAL = frozenset("*[]?^\\")

State = tuple[bool, ...]
"""Of one folder: which patterns match it or one above it. Its children inherit that."""


@dataclass(frozen=True, slots=True)
class _Rule:
    match: Match
    exception: bool
    stem: str
    """The pattern without a wildcard at its end: what it matches is at or below this."""
    special: bool


class Patterns:
    """Lines of patterns; of those that match, the last decides, and `!` in front means no.

    Raises PatternError (a ValueError) for a line that cannot be read.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        cleaned = (clean(line.strip()) for line in lines if line.strip())
        self._rules = tuple(_rule(line) for line in cleaned)
        self._special = {
            exception: any(r.special for r in self._rules if r.exception is exception)
            for exception in (False, True)
        }

    def __bool__(self) -> bool:
        return bool(self._rules)

    def excludes(self, path: str) -> bool:
        """Whether `path` (relative, with slashes) is matched, itself or a folder above it."""
        matched, state, end = False, None, 0
        while end >= 0 and path:
            end = path.find("/", end + 1)
            matched, state = self.match(path[:end] if end >= 0 else path, state)
        return matched

    def match(self, path: str, parent: State | None) -> tuple[bool, State]:
        """The same, step by step: `parent` is the state of the folder, None at the root."""
        matched, state = False, []
        for place, rule in enumerate(self._rules):
            hit = parent is not None and parent[place]
            # A pattern that could not change the verdict is not even tried; children see that.
            if not hit and rule.exception is matched:
                hit = rule.match(path)
            state.append(hit)
            if hit:
                matched = not rule.exception
        return matched, tuple(state)

    def reach_below(self, folder: str, *, exceptions: bool) -> bool:
        """Whether a pattern (or an exception) could match something below a folder by itself."""
        if self._special[exceptions]:
            return True
        below = folder + "/"
        return any(
            (rule.stem + "/").startswith(below)
            for rule in self._rules
            if rule.exception is exceptions
        )


def parse_ignore_file(text: str) -> list[str]:
    """The patterns of a .dockerignore, cleaned; comments and blank lines are left out.

    A comment has its `#` in the first column. A pattern may begin with a slash, after the `!` too.
    """
    found = []
    for line in text.removeprefix("\ufeff").split("\n"):
        pattern = line.strip()
        if not pattern or line.startswith("#"):
            continue
        exception = pattern.startswith("!")
        pattern = pattern[exception:].strip()
        if pattern:
            pattern = clean(pattern)
        if len(pattern) > 1:
            pattern = pattern.removeprefix("/")
        found.append("!" * exception + pattern)
    return found


def clean(path: str) -> str:
    """The shortest form of a path, as Go's filepath.Clean."""
    # POSIX lets two leading slashes stand, Go does not.
    return posixpath.normpath(path).replace("//", "/", 1)


def _rule(line: str) -> _Rule:
    exception = line.startswith("!")
    pattern = line[exception:]
    if not pattern:
        raise PatternError("A pattern that is only an exclamation mark has no meaning.")
    stem = pattern.removesuffix("/**").removesuffix("/*")
    return _Rule(compile_glob(pattern), exception, stem, not SPECIAL.isdisjoint(stem))
