"""What a daemon may ask its client about registries: who am I there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import DecodeError

from imagewright.clients.buildkit.calls import CallFailed, Code, Handler, unary
from imagewright.clients.buildkit.proto.auth_pb2 import CredentialsRequest, CredentialsResponse

AUTH = "/moby.filesync.v1.Auth/"


@dataclass(frozen=True, slots=True)
class Credential:
    """A name and its secret in one registry. An empty name makes the secret an identity token."""

    username: str
    secret: str = field(repr=False)


class Credentials(Protocol):
    """Knows who we are in a registry, named by its host as the daemon dials it."""

    async def __call__(self, host: str) -> Credential | None:
        """What to show that registry, or None to come as nobody."""
        ...


async def anonymous(host: str) -> Credential | None:  # noqa: ARG001  # nobody, anywhere
    """Nobody, everywhere."""
    return None


class Auth:
    """The session's Auth service.

    Only `Credentials` is served. The daemon takes UNIMPLEMENTED on `GetTokenAuthority` for leave
    to fetch tokens itself (BuildKit's session/auth/auth.go), with the credential from here.
    """

    def __init__(self, credentials: Credentials = anonymous) -> None:
        self._credentials = credentials

    def handlers(self) -> Mapping[str, Handler]:
        """The served methods."""
        return {AUTH + "Credentials": unary(self._answer)}

    async def _answer(self, message: bytes) -> bytes:
        try:
            host = CredentialsRequest.FromString(message).Host
        except DecodeError as error:
            raise CallFailed(Code.INVALID_ARGUMENT, "That is no CredentialsRequest.") from error
        found = await self._credentials(host)
        if found is None:
            return CredentialsResponse().SerializeToString()
        answer = CredentialsResponse(Username=found.username, Secret=found.secret)
        return answer.SerializeToString()
