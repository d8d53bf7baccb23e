"""A git repository's address, as git may be told of it."""

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from imagewright.api.reason import Reason
from imagewright.ports import Failed, Rejected

SCP = re.compile(r"(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@(?P<host>[A-Za-z0-9.-]+):(?P<path>.+)")
PORTS = {"http": 80, "https": 443, "git": 9418, "ssh": 22}
HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a repository is. `user` is one of ssh: no other scheme has it in its URL."""

    scheme: str
    host: str
    port: int
    path: str
    user: str = ""

    @property
    def origin(self) -> tuple[str, str, int]:
        """What a credential belongs to."""
        return self.scheme, self.host.lower(), self.port

    @property
    def url(self) -> str:
        """Its URL, in which nothing can be taken for an option."""
        return self.at(self.host)

    def at(self, host: str) -> str:
        """The URL with another host in it."""
        shown = f"[{host}]" if ":" in host else host
        user = f"{self.user}@" if self.user else ""
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{user}{shown}{port}{self.path}"

    @property
    def section(self) -> str:
        """How git's configuration names this server."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{shown}{port}"


def parse(text: str) -> Remote:
    """Read a URL, or `user@host:path`. Raises Rejected (SourceUnavailable)."""
    short = SCP.fullmatch(text)
    if short and "://" not in text:
        path = "/" + short["path"].lstrip("/")
        return _checked(Remote("ssh", short["host"], PORTS["ssh"], path, short["user"]), text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _unusable(text) from error
    if parts.scheme not in PORTS or not parts.hostname or parts.password is not None:
        raise _unusable(text)
    if parts.query or parts.fragment or (parts.username and parts.scheme != "ssh"):
        raise _unusable(text)
    return _checked(
        Remote(
            parts.scheme,
            parts.hostname,
            port or PORTS[parts.scheme],
            parts.path,
            parts.username or "",
        ),
        text,
    )


def submodule(parent: Remote, url: str) -> Remote:
    """Where a submodule is, by the url in .gitmodules, which may be relative to its parent's.

    Raises Failed (SourceUnavailable).
    """
    try:
        if not url.startswith(("./", "../")):
            return parse(url)
        path = posixpath.normpath(posixpath.join(parent.path, url))
        parts = urlsplit(parent.url)
        return parse(urlunsplit((parts.scheme, parts.netloc, path, "", "")))
    except Rejected as error:
        raise Failed(
            f"A submodule of {parent.url} is at {url!r}, which is no https, http, git or ssh URL.",
            Reason.SOURCE_UNAVAILABLE,
        ) from error


def _checked(remote: Remote, text: str) -> Remote:
    plain = all(" " < letter != "\x7f" for letter in remote.path)
    if not HOST.fullmatch(remote.host) or not plain or not remote.path.startswith("/"):
        raise _unusable(text)
    if remote.user and not USER.fullmatch(remote.user):
        raise _unusable(text)
    return remote


def _unusable(text: str) -> Rejected:
    # What stands before an @ might be a password.
    return Rejected(
        f"spec.source.git.url ends in {text.rpartition('@')[2][-80:]!r} and cannot be used: write "
        "https://host/path, ssh://git@host/path or git@host:path, without a password.",
        Reason.SOURCE_UNAVAILABLE,
    )
