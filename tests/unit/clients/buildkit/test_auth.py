"""What a daemon learns about registries."""

import pytest

from imagewright.clients.buildkit.auth import AUTH, Auth, Credential, Credentials, anonymous
from imagewright.clients.buildkit.http2 import Connection
from imagewright.clients.buildkit.proto.auth_pb2 import CredentialsRequest, CredentialsResponse
from tests.support.grpc_go import Answer, Talk


async def known(host: str) -> Credential | None:
    return Credential("me", "s3cret") if host == "registry.test" else None


async def asked(credentials: Credentials, method: str, message: bytes) -> Answer:
    connection = Connection(Auth(credentials).handlers())
    client = Talk(connection)
    client.greet()
    client.ask(1, AUTH + method, message)
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
    request = CredentialsRequest(Host=host)
    answer = await asked(credentials, "Credentials", request.SerializeToString())
    found = CredentialsResponse.FromString(answer.messages[0])

    assert (found.Username, found.Secret) == expected


@pytest.mark.parametrize("method", ["FetchToken", "GetTokenAuthority", "VerifyTokenAuthority"])
async def test_a_daemon_is_left_to_fetch_tokens_itself(method: str) -> None:
    answer = await asked(anonymous, method, b"")

    assert answer.status == 12


async def test_a_question_that_is_none_is_refused() -> None:
    answer = await asked(anonymous, "Credentials", b"\xff")

    assert answer.status == 3


async def test_a_registry_that_cannot_be_asked_about_fails_the_call() -> None:
    async def broken(host: str) -> Credential | None:
        raise ConnectionError(f"no answer about {host}")

    answer = await asked(broken, "Credentials", CredentialsRequest(Host="h").SerializeToString())

    assert (answer.status, answer.message) == (2, "ConnectionError: no answer about h")


def test_a_credential_does_not_show_its_secret() -> None:
    assert "s3cret" not in repr(Credential("me", "s3cret"))
