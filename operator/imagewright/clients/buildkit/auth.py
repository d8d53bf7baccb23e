"""What a daemon may ask its client about registries: who am I there."""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import DecodeError, Message

from imagewright.clients.buildkit.calls import CallFailed, Code, Handler, unary
from imagewright.clients.buildkit.proto.auth_pb2 import (
    CredentialsRequest,
    CredentialsResponse,
    FetchTokenRequest,
    FetchTokenResponse,
    GetTokenAuthorityRequest,
    GetTokenAuthorityResponse,
    VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse,
)
from imagewright.clients.registry.credential import Credential, Credentials, anonymous
from imagewright.clients.registry.tokens import CLIENT_ID, Challenge, TokenClient, TokenRefused

__all__ = ["Auth", "Credential", "Credentials", "anonymous"]

AUTH = "/moby.filesync.v1.Auth/"
_SEED = secrets.token_bytes(32)
"""Of this process, so that its sessions can share tokens, and those of others cannot."""

M = TypeVar("M", bound=Message)


class Auth:
    """The session's Auth service: three ways for a daemon to get into a registry.

    * Where the registry wants a password itself, the daemon asks for it (`Credentials`).
    * Where it wants a token and there is `tokens`, we fetch it (`FetchToken`): the daemon never
      sees the password.
    * Without `tokens` the daemon gets the password and fetches the token itself; it takes
      UNIMPLEMENTED on `GetTokenAuthority` for leave to (BuildKit's session/auth/auth.go).

    A daemon keeps our tokens and uses them for later sessions that prove to be the same authority
    (`VerifyTokenAuthority`). An authority is a credential in a registry: two tenants of one
    registry never get one another's tokens, and a credential that changed gets new ones.
    """

    def __init__(
        self, credentials: Credentials = anonymous, tokens: TokenClient | None = None
    ) -> None:
        self._credentials = credentials
        self._tokens = tokens

    def handlers(self) -> Mapping[str, Handler]:
        """The served methods."""
        served = {AUTH + "Credentials": unary(self._answer)}
        if self._tokens is None:
            return served
        return {
            **served,
            AUTH + "GetTokenAuthority": unary(self._authority),
            AUTH + "VerifyTokenAuthority": unary(self._verify),
            AUTH + "FetchToken": unary(partial(self._fetch, self._tokens)),
        }

    async def _answer(self, message: bytes) -> bytes:
        found = await self._credential(_parsed(CredentialsRequest, message).Host)
        if found is None:
            return CredentialsResponse().SerializeToString()
        answer = CredentialsResponse(Username=found.username, Secret=found.secret)
        return answer.SerializeToString()

    async def _authority(self, message: bytes) -> bytes:
        request = _parsed(GetTokenAuthorityRequest, message)
        key = await self._key(request.Host, request.Salt)
        answer = GetTokenAuthorityResponse(PublicKey=key.public_key().public_bytes_raw())
        return answer.SerializeToString()

    async def _verify(self, message: bytes) -> bytes:
        request = _parsed(VerifyTokenAuthorityRequest, message)
        key = await self._key(request.Host, request.Salt)
        # NaCl's signed message: the signature, and then what it is of.
        signed = key.sign(request.Payload) + request.Payload
        return VerifyTokenAuthorityResponse(Signed=signed).SerializeToString()

    async def _fetch(self, tokens: TokenClient, message: bytes) -> bytes:
        request = _parsed(FetchTokenRequest, message)
        challenge = Challenge(
            host=request.Host,
            realm=request.Realm,
            service=request.Service,
            scopes=tuple(request.Scopes),
            client_id=request.ClientID or CLIENT_ID,
        )
        credential = await self._credential(request.Host)
        try:
            token = await tokens.fetch(challenge, credential)
        except TokenRefused as error:
            # A daemon hands a status on as the build's own; this one is not taken for an outage of
            # the daemon.
            raise CallFailed(Code.UNKNOWN, str(error)) from error
        answer = FetchTokenResponse(
            Token=token.value, ExpiresIn=token.expires_seconds, IssuedAt=token.issued
        )
        return answer.SerializeToString()

    async def _credential(self, host: str) -> Credential | None:
        """What is known for that very host. One without a secret is nobody's."""
        try:
            found = await self._credentials(host)
        except CallFailed:
            raise
        except Exception as error:
            # The error's text may hold what was being read.
            raise CallFailed(
                Code.UNKNOWN,
                f"The credential for the registry {host} could not be read "
                f"({type(error).__name__}).",
            ) from error
        return found if found and found.secret else None

    async def _key(self, host: str, salt: bytes) -> Ed25519PrivateKey:
        """The key of an authority. All who are nobody are one: they get the same tokens."""
        credential = await self._credential(host)
        seed = b"" if credential is None else _seed(host, credential)
        return Ed25519PrivateKey.from_private_bytes(hmac.digest(salt, seed, hashlib.sha256))


def _seed(host: str, credential: Credential) -> bytes:
    """What only this process knows of a credential, and as often as it is asked."""
    parts = (host, credential.username, credential.secret)
    text = b"".join(len(part.encode()).to_bytes(8, "big") + part.encode() for part in parts)
    return hmac.digest(_SEED, text, hashlib.sha256)


def _parsed(kind: Callable[[], M], message: bytes) -> M:
    request = kind()
    try:
        request.ParseFromString(message)
    except DecodeError as error:
        name = type(request).__name__
        raise CallFailed(Code.INVALID_ARGUMENT, f"That is no {name}.") from error
    return request
