"""What came from outside, made fit for a status, a log line or a message."""

import re
from collections.abc import Iterable

MASK = "***"
# Only the end of a scheme is looked at: to find its begin would take time that grows with the
# square of a long word's length, and whoever prints words chooses their length.
_URL_USER = re.compile(r"(?P<scheme>[a-zA-Z0-9+.-]://)[^/\s@]+@")
_AUTHORIZATION = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_QUERY = re.compile(r"(?i)([?&](?:token|access_token|password|secret|sig|signature)=)[^&\s]+")
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
# Controls but tab and newline: none of them belongs into an object.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without credentials: those it shows by their form, and every one of `secrets`."""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(secret, MASK)
    text = _URL_USER.sub(rf"\g<scheme>{MASK}@", text)
    text = _AUTHORIZATION.sub(rf"\1 {MASK}", text)
    return _QUERY.sub(rf"\1{MASK}", text)


def printable(text: str) -> str:
    """The text without terminal escapes and control characters; carriage returns end a line."""
    return _CONTROL.sub("", _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def clip(text: str, limit: int) -> str:
    """At most `limit` bytes of printable text as JSON has it, the end cut off and marked."""
    if json_bytes(text) <= limit:
        return text
    kept = text.encode()[: limit - len("…".encode())].decode(errors="ignore")
    while over := max(0, json_bytes(kept) + len("…".encode()) - limit):
        kept = kept[: -(over + 1) // 2]
    return kept + "…"


def tail(text: str, limit: int) -> str:
    """At most the last `limit` bytes as JSON has them, from a line's beginning if it can be."""
    if json_bytes(text) <= limit:
        return text
    cut = text.encode()[-limit:].decode(errors="ignore")
    while over := max(0, json_bytes(cut) - limit):
        cut = cut[(over + 1) // 2 :]
    whole = cut.partition("\n")[2]
    return whole or cut


def json_bytes(text: str) -> int:
    """The bytes of a printable text inside a JSON string: some characters take an escape."""
    return len(text.encode()) + sum(text.count(escaped) for escaped in '"\\\n\t')
