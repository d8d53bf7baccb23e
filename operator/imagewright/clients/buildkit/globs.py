"""One pattern of a .dockerignore as a function from path to yes or no.

The meaning is that of moby/patternmatcher, which BuildKit uses on both ends of a session, oddities
included: `**` crosses folders, `[^a]` may match a slash, `^` is the beginning of the path.

Patterns come from strangers and Python's `re` backtracks, so a pattern with many wildcards could
stop the whole process. Here the usual shapes become expressions that never try a position twice
(`(?>...)`), and unusual ones may hold a few wildcards only.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

MOST_WILDCARDS = 3
"""In a pattern of unusual shape: the time to match grows with the length to this power."""
LETTERS = frozenset("dDsSwWafnrtvbBA")
"""What may follow a backslash and then means something else to Go's regexp, as to Python's."""

ESCAPED = re.compile(r"\\(.)", re.DOTALL)

Match = Callable[[str], bool]


class PatternError(ValueError):
    """A pattern that cannot be read. The text is a sentence that names it."""


class _Kind(Enum):
    ONE = auto()  # exactly one character, or none for an anchor
    SLASH = auto()
    STAR = auto()  # anything but a slash
    DEEP = auto()  # any number of whole folders
    REST = auto()  # anything to the end


@dataclass(frozen=True, slots=True)
class _Token:
    kind: _Kind
    regex: str
    magic: bool = True


_STAR = _Token(_Kind.STAR, "[^/]*")
_DEEP = _Token(_Kind.DEEP, "(?:.*/)?")
_REST = _Token(_Kind.REST, ".*")
_ANY = _Token(_Kind.ONE, "[^/]")
_SLASH = _Token(_Kind.SLASH, "/", magic=False)
_CARET = _Token(_Kind.ONE, "^", magic=False)
_LITERAL_CARET = _Token(_Kind.ONE, r"\^", magic=False)


def compile_glob(pattern: str) -> Match:
    """How `pattern`, cleaned and without its `!`, matches a relative path with slashes.

    Raises PatternError where it is malformed.
    """
    tokens = list(_tokens(pattern))
    if not any(token.magic for token in tokens):
        return pattern.__eq__
    # Three short cuts of moby/patternmatcher, which are not mere optimisations: a `^` means itself
    # in them, and `**foo` matches `xfoo`.
    first, *others = tokens
    plain_rest = not any(token.magic for token in others)
    if first.kind in (_Kind.DEEP, _Kind.REST) and plain_rest:
        return _ends_with(pattern[2:])
    if tokens[-1].kind is _Kind.REST and not any(token.magic for token in tokens[:-1]):
        stem = pattern[:-2]
        return lambda path: path.startswith(stem)
    return _expression(pattern, tokens)


def match_name(pattern: str, name: str) -> bool:
    """Whether a name matches one part of a path, as Go's filepath.Match; never, if it is bad."""
    # To filepath.Match a backslash and a `^` are nothing more than what they look like.
    plain = ESCAPED.sub(lambda found: found[1] if found[1].isalnum() else found[0], pattern)
    try:
        tokens = [_LITERAL_CARET if t is _CARET else t for t in _tokens(plain, deep=False)]
    except PatternError:
        return False
    return re.fullmatch(_linear(tokens), name) is not None


def _ends_with(suffix: str) -> Match:
    def match(path: str) -> bool:
        return path.endswith(suffix) or (suffix[:1] == "/" and path == suffix[1:])

    return match


def _expression(pattern: str, tokens: list[_Token]) -> Match:
    try:
        if _usual(tokens):
            found = re.compile(_linear(tokens), re.ASCII)
        else:
            found = re.compile("".join(token.regex for token in tokens), re.ASCII)
    except re.error as error:
        raise PatternError(f"The pattern {pattern!r} cannot be read: {error}.") from error
    wildcards = sum(token.kind in (_Kind.STAR, _Kind.DEEP) for token in tokens)
    if wildcards > MOST_WILDCARDS and not _usual(tokens):
        raise PatternError(
            f"The pattern {pattern!r} is too complex: with a ** inside a name, or a [] that also "
            f"matches a slash, it may hold {MOST_WILDCARDS} wildcards at most."
        )
    return lambda path: found.fullmatch(path) is not None


def _usual(tokens: list[_Token]) -> bool:
    """Whether each `**` begins where a name begins, and only a slash matches a slash."""
    before = _SLASH
    for token in tokens:
        if token.kind is _Kind.DEEP and before.kind is not _Kind.SLASH:
            return False
        if token.kind is _Kind.ONE and re.fullmatch(token.regex, "/", re.ASCII):
            return False
        before = token
    return True


def _linear(tokens: list[_Token]) -> str:
    """An expression whose time does not explode with the number of wildcards.

    What lies between two `**/` may be taken where it is found first, because the second of them
    can swallow whatever lies before a later place. The last one has to reach the end of the path.
    """
    first, *later = _split(tokens, _Kind.DEEP)
    middle = [f"(?>(?:.*?/)??{_section(section)})" for section in later[:-1]]
    last = [_DEEP.regex + _section(section) for section in later[-1:]]
    return "".join([_section(first), *middle, *last])


def _section(tokens: list[_Token]) -> str:
    """The same for `*`: between two of them, the first place is as good as any later one."""
    pieces = ["".join(token.regex for token in run) for run in _split(tokens, _Kind.STAR)]
    first, *later = pieces
    middle = [f"(?>[^/]*?{piece})" for piece in later[:-1]]
    last = [_STAR.regex + piece for piece in later[-1:]]
    return "".join([first, *middle, *last])


def _split(tokens: list[_Token], kind: _Kind) -> list[list[_Token]]:
    runs: list[list[_Token]] = [[]]
    for token in tokens:
        if token.kind is kind:
            runs.append([])
        else:
            runs[-1].append(token)
    return runs


def _tokens(pattern: str, *, deep: bool = True) -> Iterator[_Token]:
    at, end = 0, len(pattern)
    while at < end:
        char = pattern[at]
        if char == "*":
            token, at = _stars(pattern, at) if deep else (_STAR, at + 1)
        elif char == "[":
            token, at = _class(pattern, at)
        elif char == "\\":
            token, at = _escape(pattern, at), at + 2
        else:
            token, at = _plain(char), at + 1
        yield token


def _plain(char: str) -> _Token:
    if char == "?":
        return _ANY
    if char == "/":
        return _SLASH
    if char == "^":
        return _CARET
    return _Token(_Kind.ONE, re.escape(char), magic=char == "]")


def _stars(pattern: str, at: int) -> tuple[_Token, int]:
    if pattern[at : at + 2] != "**":
        return _STAR, at + 1
    at += 3 if pattern[at + 2 : at + 3] == "/" else 2
    return (_DEEP if at < len(pattern) else _REST), at


def _escape(pattern: str, at: int) -> _Token:
    char = pattern[at + 1 : at + 2]
    if char.isascii() and char and not char.isalnum():
        return _Token(_Kind.ONE, re.escape(char))
    if char in LETTERS and char:
        return _Token(_Kind.ONE, "\\" + char)
    raise PatternError(f"The pattern {pattern!r} has a backslash before {char or 'its end'!r}.")


def _class(pattern: str, start: int) -> tuple[_Token, int]:
    """A `[...]` that Go's filepath.Match takes: filled, and no end of a range is `-` or `]`."""
    at = start + 1
    regex = "["
    if pattern[at : at + 1] == "^":
        regex, at = "[^", at + 1
    opened = at
    while pattern[at : at + 1] != "]" or at == opened:
        low, at = _bound(pattern, at)
        regex += low
        if pattern[at : at + 1] == "-":
            high, at = _bound(pattern, at + 1)
            regex += "-" + high
    return _Token(_Kind.ONE, regex + "]"), at + 1


def _bound(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at : at + 1]
    if char in ("", "-", "]"):
        raise PatternError(f"The pattern {pattern!r} has a [ that is not closed or not filled.")
    if char in "*?" or pattern[at : at + 2] == "[:":
        # moby/patternmatcher makes something of these that nobody can mean.
        raise PatternError(f"The pattern {pattern!r} has {char!r} inside [].")
    if char == "\\":
        return _escape(pattern, at).regex, at + 2
    return re.escape(char), at + 1
