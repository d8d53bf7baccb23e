"""What a Docker Engine's error means for the user: a reason, a sentence, whether to try again."""

from http import HTTPStatus

from imagewright.api.reason import Reason
from imagewright.clients.engine.errors import (
    EngineError,
    Refused,
    StreamError,
    TlsFailed,
    Unreachable,
    Unsupported,
)
from imagewright.domain.sign import ended_with, read, told
from imagewright.ports import Error, Failed, Rejected, Unavailable

SPEAKER = "The engine"
BUSY = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})


def translate(error: EngineError, doing: str = "") -> Error:
    """The error in our words; every EngineError has one.

    `doing` stands before the engine's own text, such as `failed to push`, where the text alone
    would not say what it speaks of.
    """
    if isinstance(error, TlsFailed):
        return Unavailable(
            f"The engine and the operator do not accept one another's certificates: {error}.",
            Reason.TLS_FAILED,
        )
    if isinstance(error, Unreachable):
        return Unavailable(f"The engine was lost: {error}.")
    if isinstance(error, Unsupported):
        return Rejected(f"The engine is too old for this: {error}.", Reason.FEATURE_UNSUPPORTED)
    if isinstance(error, Refused) and error.status in BUSY:
        return Unavailable(told("", SPEAKER, str(error)))
    return _said(error, f"{doing}: {error}" if doing else str(error))


def _said(error: EngineError, text: str) -> Error:
    """By the text, whose status says little: a fault of the user is often a 500."""
    code = error.code if isinstance(error, StreamError) else None
    sign = ended_with(code) if code else read(text)
    if sign is None:
        return Failed(told("", SPEAKER, text))
    message = told(sign.advice, SPEAKER, text)
    if sign.retryable:
        return Unavailable(message, sign.reason)
    return Failed(message, sign.reason).at("", None, code)
