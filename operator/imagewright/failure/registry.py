"""What a registry's error means for the user: a reason, a sentence, and whether to try again."""

from imagewright.api.reason import Reason
from imagewright.clients.registry.errors import (
    Corrupt,
    NotFound,
    RegistryError,
    TlsFailed,
    Unauthorized,
    Unreachable,
)
from imagewright.ports import Error, Failed, Unavailable


def translate(error: RegistryError) -> Error:
    """The error in our words; every RegistryError has one."""
    if isinstance(error, TlsFailed):
        return Failed(f"The registry is not to be trusted: {error}.", Reason.TLS_FAILED)
    if isinstance(error, Unreachable):
        return Unavailable(
            f"The registry did not answer: check that it is up and reachable. {error}.",
            Reason.REGISTRY_UNAVAILABLE,
        )
    if isinstance(error, Unauthorized):
        return Failed(
            "The registry did not let us: check that the name is right and who may push there. "
            f"{error}.",
            Reason.PUSH_UNAUTHORIZED,
        )
    if isinstance(error, NotFound):
        return Failed(f"The registry has no such image: {error}.", Reason.SOURCE_UNAVAILABLE)
    if isinstance(error, Corrupt):
        return Failed(
            f"The registry holds something damaged: {error}. Build again, or mend the registry.",
            Reason.REGISTRY_UNAVAILABLE,
        )
    return Failed(f"The registry did not take the image: {error}.", Reason.REGISTRY_UNAVAILABLE)
