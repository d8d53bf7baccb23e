"""What a daemon gets of secrets."""

import pytest

from imagewright.clients.buildkit.http2 import Connection
from imagewright.clients.buildkit.proto.secrets_pb2 import GetSecretRequest, GetSecretResponse
from imagewright.clients.buildkit.secrets import GET_SECRET, MAX_SECRET, Secrets
from tests.support.grpc_go import Answer, Talk

VALUES = {"token": b"s3cret\x00\xff", "empty": b"", "full": b"x" * MAX_SECRET, "GIT.host": b"g"}


async def lookup(name: str) -> bytes | None:
    if name == "broken":
        raise OSError("cannot read s3cret")
    return b"x" * (MAX_SECRET + 1) if name == "large" else VALUES.get(name)


async def asked(message: bytes) -> Answer:
    connection = Connection(Secrets(lookup).handlers())
    client = Talk(connection)
    client.greet()
    client.ask(1, GET_SECRET, message)
    answer = await client.ended(1)
    await connection.close()
    return answer


@pytest.mark.parametrize("name", VALUES)
async def test_a_secret_comes_as_it_is(name: str) -> None:
    answer = await asked(GetSecretRequest(ID=name).SerializeToString())

    assert GetSecretResponse.FromString(answer.messages[0]).data == VALUES[name]


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        pytest.param("other", 5, "There is no secret other.", id="one that is not known"),
        pytest.param("large", 3, "512001 bytes", id="one that BuildKit would not take"),
        pytest.param("broken", 2, "could not be read (OSError)", id="one that cannot be read"),
    ],
)
async def test_no_secret_is_a_sentence_without_it(name: str, status: int, text: str) -> None:
    answer = await asked(GetSecretRequest(ID=name).SerializeToString())

    assert (answer.status, answer.messages) == (status, [])
    assert text in answer.message
    assert "s3cret" not in answer.message


async def test_a_question_that_is_none_is_refused() -> None:
    assert (await asked(b"\xff")).status == 3
