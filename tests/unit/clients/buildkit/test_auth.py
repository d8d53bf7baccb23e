"""What a daemon learns about registries."""

import hmac
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf.message import Message

from imagewright.clients.buildkit.auth import AUTH, Auth, Credential, Credentials, anonymous
from imagewright.clients.buildkit.calls import CallFailed, Code
from imagewright.clients.buildkit.http2 import Connection
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
from imagewright.clients.registry.tokens import TokenClient
from tests.support.grpc_go import Answer, Talk

METHODS = ["Credentials", "FetchToken", "GetTokenAuthority", "VerifyTokenAuthority"]


async def known(host: str) -> Credential | None:
    return Credential("me", "s3cret") if host == "registry.test" else None


async def asked(auth: Auth, method: str, message: Message | bytes) -> Answer:
    connection = Connection(auth.handlers())
    client = Talk(connection)
    client.greet()
    body = message if isinstance(message, bytes) else message.SerializeToString()
    client.ask(1, AUTH + method, body)
    answer = await client.ended(1)
    await connection.close()
    return answer


@pytest.mark.parametrize(
    ("credentials", "host", "expected"),
    [
        pytest.param(anonymous, "registry.test", ("", ""), id="nobody is nobody everywhere"),
        pytest.param(known, "registry.test", ("me", "s3cret"), id="we are known where we are"),
        pytest.param(known, "other.test", ("", ""), id="and nobody elsewhere"),
    ],
)
async def test_a_daemon_learns_who_we_are(
    credentials: Credentials, host: str, expected: tuple[str, str]
) -> None:
    answer = await asked(Auth(credentials), "Credentials", CredentialsRequest(Host=host))
    found = CredentialsResponse.FromString(answer.messages[0])

    assert (found.Username, found.Secret) == expected


@pytest.mark.parametrize("method", METHODS[1:])
async def test_without_a_client_for_tokens_a_daemon_is_left_to_fetch_them(method: str) -> None:
    answer = await asked(Auth(), method, b"")

    assert answer.status == 12


@pytest.mark.parametrize("method", METHODS)
async def test_a_question_that_is_none_is_refused(method: str) -> None:
    answer = await asked(Auth(tokens=TokenClient()), method, b"\xff")

    assert answer.status == 3


@pytest.mark.parametrize("method", METHODS)
async def test_a_credential_that_cannot_be_read_fails_the_call_and_stays_hidden(
    method: str,
) -> None:
    async def broken(host: str) -> Credential | None:
        raise ConnectionError("no answer from s3cret@vault")

    auth = Auth(broken, TokenClient())
    answer = await asked(auth, method, FetchTokenRequest())

    assert answer.status == 2
    assert "could not be read (ConnectionError)" in answer.message
    assert "s3cret" not in answer.message


async def test_what_a_lookup_says_by_itself_is_passed_on() -> None:
    async def broken(host: str) -> Credential | None:
        raise CallFailed(Code.INVALID_ARGUMENT, f"Two credentials fit {host}.")

    answer = await asked(Auth(broken), "Credentials", CredentialsRequest(Host="h"))

    assert (answer.status, answer.message) == (3, "Two credentials fit h.")


def test_a_credential_does_not_show_its_secret() -> None:
    assert "s3cret" not in repr(Credential("me", "s3cret"))


SALT = b"of this daemon"


def of(username: str, secret: str) -> Auth:
    async def credentials(host: str) -> Credential | None:
        return Credential(username, secret)

    return Auth(credentials, TokenClient())


async def authority(auth: Auth, host: str = "registry.test", salt: bytes = SALT) -> bytes:
    request = GetTokenAuthorityRequest(Host=host, Salt=salt)
    answer = await asked(auth, "GetTokenAuthority", request)
    return GetTokenAuthorityResponse.FromString(answer.messages[0]).PublicKey


async def signed(auth: Auth, payload: bytes) -> bytes:
    request = VerifyTokenAuthorityRequest(Host="registry.test", Salt=SALT, Payload=payload)
    answer = await asked(auth, "VerifyTokenAuthority", request)
    return VerifyTokenAuthorityResponse.FromString(answer.messages[0]).Signed


async def test_a_later_session_proves_to_be_the_same_authority() -> None:
    key = Ed25519PublicKey.from_public_bytes(await authority(of("me", "s3cret")))
    payload = os.urandom(32)
    message = await signed(of("me", "s3cret"), payload)

    assert message[64:] == payload
    key.verify(message[:64], payload)


async def test_another_tenants_session_does_not_prove_to_be_ours() -> None:
    key = Ed25519PublicKey.from_public_bytes(await authority(of("me", "s3cret")))
    message = await signed(of("other", "s3cret2"), b"payload")

    with pytest.raises(InvalidSignature):
        key.verify(message[:64], b"payload")


@pytest.mark.parametrize(
    ("other", "same"),
    [
        pytest.param(lambda: authority(of("me", "s3cret")), True, id="the same credential"),
        pytest.param(lambda: authority(of("you", "s3cret")), False, id="another name"),
        pytest.param(lambda: authority(of("me", "n3w")), False, id="a secret that changed"),
        pytest.param(
            lambda: authority(of("mes3", "cret")), False, id="the same letters cut elsewhere"
        ),
        pytest.param(
            lambda: authority(of("me", "s3cret"), "other.test"), False, id="another registry"
        ),
        pytest.param(lambda: authority(of("me", "s3cret"), salt=b"2"), False, id="another daemon"),
        pytest.param(lambda: authority(Auth(tokens=TokenClient())), False, id="nobody"),
    ],
)
async def test_an_authority_is_a_credential_in_a_registry_at_a_daemon(
    other: Callable[[], Awaitable[bytes]], same: bool
) -> None:
    assert (await authority(of("me", "s3cret")) == await other()) is same


async def test_all_who_are_nobody_are_one_authority_in_every_process() -> None:
    seed = hmac.digest(SALT, b"", "sha256")
    expected = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    keys = {await authority(Auth(tokens=TokenClient())), await authority(of("me", ""))}

    assert keys == {expected}


async def test_a_token_is_fetched_with_the_credential_of_that_host(realm: "Realm") -> None:
    request = FetchTokenRequest(
        Host="127.0.0.1:5000", Realm=realm.url, Service="svc", Scopes=["a:b:pull", "a:c:push"]
    )

    async def credentials(host: str) -> Credential | None:
        return Credential("me", "s3cret") if host == "127.0.0.1:5000" else None

    answer = await asked(Auth(credentials, TokenClient()), "FetchToken", request)
    found = FetchTokenResponse.FromString(answer.messages[0])

    assert (found.Token, found.ExpiresIn, found.IssuedAt) == ("t0ken", 60, 0)
    assert realm.seen[0]["username"] == "me"
    assert realm.seen[0]["client_id"] == "buildkit-client"


async def test_a_token_that_is_refused_is_an_answer_and_no_outage(realm: "Realm") -> None:
    realm.status = 403
    request = FetchTokenRequest(Host="localhost:1", Realm=realm.url)
    answer = await asked(of("me", "s3cret"), "FetchToken", request)

    assert answer.status == 2
    assert "unauthorized" in answer.message
    assert "s3cret" not in answer.message


class Realm:
    """A token service that answers what the test wants."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.status = 200
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append({key: str(value) for key, value in (await request.post()).items()})
        return web.json_response({"access_token": "t0ken"}, status=self.status)


@pytest.fixture
async def realm() -> AsyncIterator[Realm]:
    service = Realm()
    application = web.Application()
    application.router.add_route("*", "/token", service.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    yield service
    await runner.cleanup()
