"""What a BuildKit error means for the user: a reason, a sentence, and whether to try again."""

from imagewright.api.reason import Reason
from imagewright.clients.buildkit.errors import (
    BuildKitError,
    SolveError,
    TLSRefused,
    Unreachable,
    Unsupported,
)
from imagewright.domain.sign import ended_with, read, told
from imagewright.ports import Error, Failed, Rejected, Unavailable

SPEAKER = "BuildKit"


def translate(error: BuildKitError) -> Error:
    """The error in our words; every BuildKitError has one."""
    if isinstance(error, TLSRefused):
        return Unavailable(
            f"The worker and the operator do not accept one another's certificates: {error}.",
            Reason.TLS_FAILED,
        )
    if isinstance(error, Unreachable):
        return Unavailable(f"The worker does not answer: {error}.")
    if isinstance(error, Unsupported):
        return Rejected(
            f"The worker's BuildKit is too old for this: {error}.", Reason.FEATURE_UNSUPPORTED
        )
    if isinstance(error, SolveError):
        return _solve_error(error)
    return Failed(str(error), Reason.BUILD_FAILED)


def _solve_error(error: SolveError) -> Error:
    details = error.details
    sign = ended_with(details.exit_code) if details.exit_code else read(error.message)
    if sign is None:
        # A line without a step is a fault of the Dockerfile.
        if details.line and not details.vertex:
            message = told("Correct the Dockerfile.", SPEAKER, error.message)
            return Failed(message, Reason.DOCKERFILE_INVALID).at("", details.line, None)
        message = told("", SPEAKER, error.message)
        return Failed(message).at(details.vertex, details.line, None)
    message = told(sign.advice, SPEAKER, error.message)
    if sign.retryable:
        return Unavailable(message, sign.reason)
    return Failed(message, sign.reason).at(details.vertex, details.line, details.exit_code or None)
