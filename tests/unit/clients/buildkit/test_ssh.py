"""The SSH agent that steps see: it shows one key, signs with it, and refuses all else."""

import base64
import functools
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from imagewright.clients.buildkit.agent import Agent, KeyRefused, load_agent
from imagewright.clients.buildkit.http2 import Connection
from imagewright.clients.buildkit.proto.ssh_pb2 import CheckAgentRequest
from imagewright.clients.buildkit.ssh import ID, MAX_REQUEST, SSH, Agents
from imagewright.clients.buildkit.wire import bytes_message, parse_bytes_message
from tests.support.grpc_go import Answer, Talk

FORMS = {"OpenSSH": PrivateFormat.OpenSSH, "PKCS8": PrivateFormat.PKCS8}
CURVES = {"nistp256": ec.SECP256R1(), "nistp384": ec.SECP384R1(), "nistp521": ec.SECP521R1()}
HASHES = {"nistp256": SHA256(), "nistp384": SHA384(), "nistp521": SHA512()}


@functools.cache
def rsa_key() -> rsa.RSAPrivateKey:
    """One for all: they take long to find."""
    return rsa.generate_private_key(65537, 2048)


ED25519 = ed25519.Ed25519PrivateKey.generate()


def pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def strings(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def signature(agent: Agent, data: bytes, flags: int = 0) -> tuple[str, bytes]:
    """What the agent signs with: the algorithm's name, and the signature."""
    request = b"\x0d" + string(agent.public) + string(data) + flags.to_bytes(4, "big")
    answer = agent.answer(request)
    assert answer[:1] == b"\x0e"
    (blob,) = strings(answer[1:])
    name, found = strings(blob)
    return name.decode(), found


@pytest.mark.parametrize("form", FORMS)
def test_the_key_is_shown_under_its_name(form: str) -> None:
    text = ED25519.private_bytes(Encoding.PEM, FORMS[form], NoEncryption())
    answer = load_agent(text, "deploy").answer(b"\x0b")
    line = ED25519.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)

    assert answer[:5] == b"\x0c\0\0\0\x01"
    assert strings(answer[5:]) == [base64.b64decode(line.split()[1]), b"deploy"]


def test_ed25519_signs() -> None:
    name, found = signature(load_agent(pem(ED25519), ""), b"data")

    assert name == "ssh-ed25519"
    ED25519.public_key().verify(found, b"data")


@pytest.mark.parametrize("curve", CURVES)
def test_ecdsa_signs_with_the_hash_of_its_curve(curve: str) -> None:
    key = ec.generate_private_key(CURVES[curve])
    for number in range(8):
        data = bytes((number,))
        name, found = signature(load_agent(pem(key), ""), data)
        r, s = strings(found)

        assert name == f"ecdsa-sha2-{curve}"
        assert all(part[0] < 0x80 and (part[0] or part[1] >= 0x80) for part in (r, s))
        der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        key.public_key().verify(der, data, ec.ECDSA(HASHES[curve]))


@pytest.mark.parametrize(
    ("flags", "name", "algorithm"),
    [(2, "rsa-sha2-256", SHA256()), (4, "rsa-sha2-512", SHA512()), (6, "rsa-sha2-256", SHA256())],
)
@pytest.mark.timeout(20)
def test_rsa_signs_with_the_hash_it_is_asked_for(
    flags: int, name: str, algorithm: SHA256 | SHA512
) -> None:
    key = rsa_key()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    found = signature(load_agent(text, ""), b"data", flags)

    assert found[0] == name
    key.public_key().verify(found[1], b"data", padding.PKCS1v15(), algorithm)


@pytest.mark.timeout(20)
def test_rsa_does_not_sign_with_sha1() -> None:
    agent = load_agent(pem(rsa_key()), "")

    assert agent.answer(b"\x0d" + string(agent.public) + string(b"d") + bytes(4)) == b"\x05"


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x0b\0", id="a request with something behind it"),
        pytest.param(b"\x0d", id="a signature of nothing"),
        pytest.param(b"\x0d" + string(b"other key") + string(b"d") + bytes(4), id="another key"),
        pytest.param(b"\x0d\xff\xff\xff\xff", id="a string that breaks off"),
        *(
            pytest.param(bytes((kind,)), id=f"message {kind}")
            for kind in (1, 9, 17, 18, 19, 20, 21, 22, 23, 25, 26, 27, 255)
        ),
    ],
)
def test_all_else_fails(request_: bytes) -> None:
    assert load_agent(pem(ED25519), "").answer(request_) == b"\x05"


def test_a_signature_without_flags_fails() -> None:
    agent = load_agent(pem(ED25519), "")

    assert agent.answer(b"\x0d" + string(agent.public) + string(b"d")) == b"\x05"


def encrypted() -> bytes:
    return ED25519.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass")
    )


def locked() -> bytes:
    """As ssh-keygen writes it, with noise for what only a passphrase would open.

    The form is that of OpenSSH's PROTOCOL.key.
    """
    options = string(string(bytes(16)) + (16).to_bytes(4, "big"))
    head = string(b"aes256-ctr") + string(b"bcrypt") + options + (1).to_bytes(4, "big")
    line = ED25519.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    body = head + string(base64.b64decode(line.split()[1])) + string(bytes(144))
    text = base64.encodebytes(b"openssh-key-v1\0" + body)
    label = b"OPENSSH PRIVATE KEY-----"
    return b"-----BEGIN " + label + b"\n" + text + b"-----END " + label + b"\n"


def of_another_kind(key: x25519.X25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        pytest.param(locked, "passphrase", id="encrypted, OpenSSH"),
        pytest.param(encrypted, "passphrase", id="encrypted, PEM"),
        pytest.param(lambda: b"", "no private key", id="nothing"),
        pytest.param(lambda: pem(ED25519)[:99], "no private key", id="one that breaks off"),
        pytest.param(
            lambda: ED25519.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            "no private key",
            id="a public key",
        ),
        pytest.param(
            lambda: of_another_kind(x25519.X25519PrivateKey.generate()),
            "kind that is not supported",
            id="one that cannot sign",
        ),
        pytest.param(
            lambda: of_another_kind(ec.generate_private_key(ec.SECP256K1())),
            "SSH knows no keys on the curve",
            id="a curve that SSH does not know",
        ),
    ],
)
def test_a_key_that_cannot_be_used_is_refused(make: Callable[[], bytes], text: str) -> None:
    with pytest.raises(KeyRefused, match=text):
        load_agent(make(), "")


def test_an_agent_does_not_show_its_key() -> None:
    assert "key=" not in repr(load_agent(pem(ED25519), "mine"))


async def lookup(name: str) -> bytes | None:
    if name == "broken":
        raise OSError("cannot read s3cret")
    return {"default": pem(ED25519), "locked": locked()}.get(name)


async def talk(*messages: bytes, name: str | None = None) -> Answer:
    """Messages to an agent, over a connection of its own."""
    connection = Connection(Agents(lookup).handlers())
    client = Talk(connection)
    client.greet()
    client.open(1, SSH + "ForwardAgent", [] if name is None else [(ID, name)])
    client.say(1, *map(bytes_message, messages), end=True)
    answer = await client.ended(1)
    await connection.close()
    return answer


async def check(message: bytes) -> Answer:
    connection = Connection(Agents(lookup).handlers())
    client = Talk(connection)
    client.greet()
    client.ask(1, SSH + "CheckAgent", message)
    answer = await client.ended(1)
    await connection.close()
    return answer


@pytest.mark.parametrize("name", [None, "", "default"])
async def test_requests_are_answered_however_they_are_cut(name: str | None) -> None:
    ask = string(b"\x0b")
    whole = await talk(ask * 2, name=name)
    cut = await talk(*(ask[at : at + 1] for at in range(len(ask))), b"", ask, name=name)
    expected = string(load_agent(pem(ED25519), "default").answer(b"\x0b"))

    assert [parse_bytes_message(one) for one in whole.messages] == [expected] * 2
    assert cut.messages == whole.messages
    assert (whole.status, cut.status) == (0, 0)


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        pytest.param("other", 5, "There is no SSH key other.", id="not known"),
        pytest.param("locked", 3, "The SSH key locked cannot be used.", id="encrypted"),
        pytest.param("broken", 2, "could not be read (OSError)", id="not readable"),
    ],
)
async def test_an_agent_that_is_not_there_is_a_sentence(name: str, status: int, text: str) -> None:
    for answer in (
        await check(CheckAgentRequest(ID=name).SerializeToString()),
        await talk(name=name),
    ):
        assert answer.status == status
        assert text in answer.message
        assert "s3cret" not in answer.message


@pytest.mark.parametrize("message", [b"", CheckAgentRequest(ID="default").SerializeToString()])
async def test_an_agent_that_is_there_is_known(message: bytes) -> None:
    answer = await check(message)

    assert (answer.status, answer.messages) == (0, [b""])


async def test_what_is_no_request_ends_the_call() -> None:
    too_long = await talk((MAX_REQUEST + 1).to_bytes(4, "big"))

    assert (too_long.status, (await check(b"\xff")).status) == (3, 3)
