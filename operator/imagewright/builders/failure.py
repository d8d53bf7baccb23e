"""What a BuildKit error means for the user: a reason, a sentence, and whether to try again.

BuildKit says most of it in text for people, so the text is read by a table: the first pattern that
is found decides. Typed details (step, line, exit code) are used where they came.
"""

import re
from dataclasses import dataclass

from imagewright.api.reason import Reason
from imagewright.clients.buildkit.errors import (
    BuildKitError,
    SolveError,
    TLSRefused,
    Unreachable,
    Unsupported,
)
from imagewright.ports import Error, Failed, Rejected, Unavailable

KILLED = 137


@dataclass(frozen=True, slots=True)
class Sign:
    """A text that gives a cause away, the cause, and what the user can do about it."""

    pattern: re.Pattern[str]
    reason: Reason
    advice: str
    retryable: bool = False


def _sign(pattern: str, reason: Reason, advice: str, *, retryable: bool = False) -> Sign:
    return Sign(re.compile(pattern, re.IGNORECASE), reason, advice, retryable)


OUTAGE = (
    r"connection refused|connection reset|no such host|i/o timeout|no route to host|"
    r"network is unreachable|TLS handshake timeout|server misbehaving|broken pipe|unexpected EOF|"
    r": EOF$|(?:status|code)[^\n]{0,120}?\b(?:429|50[0234])\b|deadline exceeded"
)
UNAUTHORIZED = (
    r"(?:status|code)[^\n]{0,120}?\b40[13]\b|authorization failed|insufficient_scope|"
    r"failed to authorize|no basic auth|access denied|unauthorized|"
    # What a registry with passwords comes down to where no session offers any.
    r"no active session"
)
PUSHING = r"failed to push|failed to do request[^\n]*blobs/uploads|error pushing"
SIGNS: tuple[Sign, ...] = (
    _sign(
        r"no space left on device",
        Reason.DISK_FULL,
        "The worker's disk is full: prune its cache or give it a larger one.",
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
        r"unknown instruction|file with no instructions",
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
        rf"failed to resolve source metadata[\s\S]*(?:{OUTAGE})",
        Reason.REGISTRY_UNAVAILABLE,
        "The registry of a base image did not answer: check that it is up and reachable.",
        retryable=True,
    ),
    _sign(
        r"failed to resolve source metadata|pull access denied|failed to resolve reference",
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


def translate(error: BuildKitError) -> Error:
    """The error in our words; every BuildKitError has one."""
    if isinstance(error, TLSRefused):
        return Unavailable(
            f"The worker and the operator do not accept one another's certificates: {error}.",
            Reason.TLS_FAILED,
        )
    if isinstance(error, Unreachable):
        return Unavailable(f"The worker was lost: {error}.")
    if isinstance(error, Unsupported):
        return Rejected(
            f"The worker's BuildKit is too old for this: {error}.", Reason.FEATURE_UNSUPPORTED
        )
    if isinstance(error, SolveError):
        return _solve_error(error)
    return Failed(str(error), Reason.BUILD_FAILED)


def _solve_error(error: SolveError) -> Error:
    details = error.details
    if details.exit_code:
        return _process_failed(error, details.exit_code).at(
            details.vertex, details.line, details.exit_code
        )
    sign = sign_of(error)
    message = _told(sign.advice, error.message)
    if sign.retryable:
        return Unavailable(message, sign.reason)
    return Failed(message, sign.reason).at(details.vertex, details.line, None)


def sign_of(error: SolveError) -> Sign:
    """What gives the cause away; a line without a step is a fault of the Dockerfile."""
    found = next((sign for sign in SIGNS if sign.pattern.search(error.message)), None)
    if found is not None:
        return found
    if error.details.line and not error.details.vertex:
        return Sign(re.compile(""), Reason.DOCKERFILE_INVALID, "Correct the Dockerfile.")
    return Sign(re.compile(""), Reason.BUILD_FAILED, "")


def _process_failed(error: SolveError, exit_code: int) -> Failed:
    if exit_code == KILLED:
        return Failed(
            _told("The step was killed, most likely for want of memory.", error.message),
            Reason.OUT_OF_MEMORY,
        )
    advice = f"A step ended with exit code {exit_code}: what it printed is in status.logTail."
    return Failed(_told(advice, error.message), Reason.BUILD_FAILED)


def _told(advice: str, text: str) -> str:
    """What to do, then BuildKit's own words: these can be long, and are what is cut off."""
    text = " ".join(text.split())
    words = text if text.endswith((".", "!", "?")) else f"{text}."
    return f"{advice} BuildKit said: {words}" if advice else words
