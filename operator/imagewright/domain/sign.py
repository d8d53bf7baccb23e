"""What a daemon's words give away: a table of texts, their causes, and what a user can do.

Daemons say most of it in text for people, so the text is read: the first pattern found decides.
"""

import re
from dataclasses import dataclass

from imagewright.api.reason import Reason

KILLED = 137
"""The exit code of a process that was killed (128 + SIGKILL)."""


@dataclass(frozen=True, slots=True)
class Sign:
    """A text that gives a cause away, the cause, and what the user can do about it."""

    pattern: re.Pattern[str]
    reason: Reason
    advice: str
    retryable: bool = False


def _sign(pattern: str, reason: Reason, advice: str, *, retryable: bool = False) -> Sign:
    return Sign(re.compile(pattern, re.IGNORECASE), reason, advice, retryable)


def _answered(codes: str) -> str:
    """A pattern for HTTP status codes. Some daemons put the whole URL before one: it is long."""
    return rf"status from \S+ request to \S+: {codes}\b|(?:status|code)[^\n]{{0,120}}?\b{codes}\b"


OUTAGE = (
    r"connection refused|connection reset|no such host|i/o timeout|no route to host|"
    r"network is unreachable|TLS handshake timeout|server misbehaving|broken pipe|unexpected EOF|"
    rf": EOF$|{_answered('(?:429|50[0234])')}|toomanyrequests|deadline exceeded"
)
UNAUTHORIZED = (
    rf"{_answered('40[13]')}|authorization failed|insufficient_scope|"
    r"failed to authorize|no basic auth|access denied|unauthorized|"
    # What a registry with passwords comes down to where no session offers any.
    r"no active session"
)
PUSHING = r"failed to push|failed to do request[^\n]*blobs/uploads|error pushing"
DISK_FULL = (
    "The worker's disk is full, though its cache was pruned: give it a larger one, or build less "
    "on it at a time."
)
SIGNS: tuple[Sign, ...] = (
    _sign(
        r"error squashing image[\s\S]*(?:non-parent|no such)",
        Reason.SQUASH_FAILED,
        "There is nothing to squash: no step of the Dockerfile adds a file to its base image.",
    ),
    _sign(
        r"error squashing image",
        Reason.SQUASH_FAILED,
        "The engine could not merge the layers: build without spec.squash.",
    ),
    _sign(
        r"requires BuildKit",
        Reason.FEATURE_UNSUPPORTED,
        "The Dockerfile needs BuildKit: build with builder: buildkit.",
    ),
    _sign(
        r"x509: |tls: failed to verify certificate",
        Reason.TLS_FAILED,
        "The certificate of a registry or source was not accepted: give the worker the authority "
        "that signed it.",
    ),
    _sign(
        # Our own words, which the daemon passes on in place of its own.
        r"^The token service \S+ of the registry[^\n]*(?:the password|a credential)",
        Reason.PUSH_UNAUTHORIZED,
        "The registry did not let us in: check the Secrets that spec.registryAuth names.",
    ),
    _sign(
        rf"(?:{PUSHING})[\s\S]*(?:{UNAUTHORIZED})",
        Reason.PUSH_UNAUTHORIZED,
        "The registry did not let us push: check that the name is right and who may push there.",
    ),
    _sign(
        rf"(?:{PUSHING})[\s\S]*(?:{OUTAGE})",
        Reason.REGISTRY_UNAVAILABLE,
        "The registry did not answer: check that it is up and that the worker reaches it.",
        retryable=True,
    ),
    _sign(
        PUSHING,
        Reason.REGISTRY_UNAVAILABLE,
        "The registry did not take the image: its answer says why.",
    ),
    _sign(
        # After the signs of a push: a registry's disk may be full as well.
        r"no space left on device",
        Reason.DISK_FULL,
        DISK_FULL,
    ),
    _sign(
        r"digest mismatch",
        Reason.SOURCE_UNAVAILABLE,
        "The download is not what spec.source.http.sha256 says: correct the digest or the URL.",
    ),
    _sign(
        # The daemon looks at 1 KiB of a download, and a plain PAX archive begins with more.
        r"unknown instruction: \./\./@PaxHeader",
        Reason.SOURCE_UNAVAILABLE,
        "The download is a PAX archive, which the worker takes for a Dockerfile: compress it, or "
        "write it in GNU format.",
    ),
    _sign(
        r"repository does not contain ref|couldn't find remote ref|invalid git ref|"
        r"did not match any file\(s\) known to git",
        Reason.SOURCE_UNAVAILABLE,
        "The repository has no such revision: correct spec.source.git.revision.",
    ),
    _sign(
        r"failed to (?:read dockerfile|solve with frontend)|dockerfile parse error|"
        r"target stage \S+ could not be found|the Dockerfile cannot be empty|"
        r"unknown instruction|file with no instructions|Cannot locate specified Dockerfile|"
        r"forbidden path outside the build context|No image was generated|"
        r"failed to reach build target",
        Reason.DOCKERFILE_INVALID,
        "Correct the Dockerfile, or the path or target that names it.",
    ),
    _sign(
        r"failed to fetch remote|error fetching default branch|git stderr|"
        r"failed to (?:resolve|load|read downloaded) (?:http)?context|invalid response status|"
        r"failed to load cache key",
        Reason.SOURCE_UNAVAILABLE,
        "The worker could not fetch the source: check its URL and that the worker reaches it.",
    ),
    _sign(
        rf"(?:failed to resolve source metadata|Get \"?https?://[^\s\"]+/v2/)[\s\S]*(?:{OUTAGE})",
        Reason.REGISTRY_UNAVAILABLE,
        "The registry of a base image did not answer: check that it is up and reachable.",
        retryable=True,
    ),
    _sign(
        # An engine's own word for 429, with which a pull of its ends.
        r"toomanyrequests",
        Reason.REGISTRY_UNAVAILABLE,
        "A registry wants to be asked less often: wait, or name a login that may ask more.",
        retryable=True,
    ),
    _sign(
        r"failed to resolve source metadata|pull access denied|failed to resolve reference|"
        r"manifest (?:for \S+ )?(?:unknown|not found)|repository \S+ not found",
        Reason.SOURCE_UNAVAILABLE,
        "A base image that FROM or COPY --from names could not be found.",
    ),
    _sign(
        r"no match for platform",
        Reason.SOURCE_UNAVAILABLE,
        "A base image does not exist for one of spec.platforms.",
    ),
    _sign(
        r"\bis not allowed\b|entitlement",
        Reason.FEATURE_UNSUPPORTED,
        "The worker does not allow what the Dockerfile asks for.",
    ),
)


def read(text: str) -> Sign | None:
    """What gives the cause away; None where nothing does."""
    return next((sign for sign in SIGNS if sign.pattern.search(text)), None)


def ended_with(exit_code: int) -> Sign:
    """The cause that a step's exit code says."""
    if exit_code == KILLED:
        return _sign(
            "", Reason.OUT_OF_MEMORY, "The step was killed, most likely for want of memory."
        )
    advice = f"A step ended with exit code {exit_code}: what it printed is in status.logTail."
    return _sign("", Reason.BUILD_FAILED, advice)


def told(advice: str, speaker: str, text: str) -> str:
    """What to do, then the daemon's own words: these can be long, and are what is cut off."""
    text = " ".join(text.split())
    words = text if text.endswith((".", "!", "?")) else f"{text}."
    return f"{advice} {speaker} said: {words}" if advice else words
