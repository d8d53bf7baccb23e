"""Secrets that a daemon mounts into steps: `RUN --mount=type=secret`, and private sources."""

from collections.abc import Awaitable, Callable, Mapping

from google.protobuf.message import DecodeError

from imagewright.clients.buildkit.calls import CallFailed, Code, Handler, unary
from imagewright.clients.buildkit.proto.secrets_pb2 import GetSecretRequest, GetSecretResponse

GET_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"  # noqa: S105  # a method's name
MAX_SECRET = 500 << 10
"""Bytes. BuildKit's own limit (its session/secrets/secretsprovider)."""


class Secrets:
    """The session's Secrets service.

    `lookup` finds a secret by its id, and None for one that is not known: a step that does not
    require it then runs without. It is asked anew for each step, and its values are kept nowhere;
    nor does a daemon keep them, or look at them when it decides what is cached. If it raises, the
    daemon is told that it did, and nothing of the error but its kind.
    """

    def __init__(self, lookup: Callable[[str], Awaitable[bytes | None]]) -> None:
        self._lookup = lookup

    def handlers(self) -> Mapping[str, Handler]:
        """The served methods."""
        return {GET_SECRET: unary(self._answer)}

    async def _answer(self, message: bytes) -> bytes:
        try:
            name = GetSecretRequest.FromString(message).ID
        except DecodeError as error:
            raise CallFailed(Code.INVALID_ARGUMENT, "That is no GetSecretRequest.") from error
        found = await looked_up(self._lookup, name, "secret")
        if len(found) > MAX_SECRET:
            raise CallFailed(
                Code.INVALID_ARGUMENT,
                f"The secret {name} has {len(found)} bytes, more than the {MAX_SECRET} that "
                "BuildKit takes: put what is large into the build's context.",
            )
        return GetSecretResponse(data=found).SerializeToString()


async def looked_up(
    lookup: Callable[[str], Awaitable[bytes | None]], name: str, kind: str
) -> bytes:
    """What `lookup` finds. Raises CallFailed, NOT_FOUND where it finds nothing."""
    try:
        found = await lookup(name)
    except CallFailed:
        raise
    except Exception as error:
        # The error's text may hold what was being read.
        text = f"The {kind} {name} could not be read ({type(error).__name__})."
        raise CallFailed(Code.UNKNOWN, text) from error
    if found is None:
        raise CallFailed(Code.NOT_FOUND, f"There is no {kind} {name}.")
    return found
