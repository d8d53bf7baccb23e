"""An SSH agent in memory: it shows one key and signs with it, and does nothing else.

The protocol is that of the IETF's draft "SSH Agent Protocol" (draft-ietf-sshm-ssh-agent); keys
and signatures are written as RFC 4253, RFC 5656, RFC 8332 and RFC 8709 have it.
"""

import base64
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

FAILURE = b"\x05"
REQUEST_IDENTITIES, IDENTITIES_ANSWER = 11, 12
SIGN_REQUEST, SIGN_RESPONSE = 13, 14
RSA_SHA2_256, RSA_SHA2_512 = 2, 4
"""Flags of a request to sign. Without one of them RSA means SHA-1, with which we do not sign."""
HASHES: dict[str, HashAlgorithm] = {
    "nistp256": SHA256(),
    "nistp384": SHA384(),
    "nistp521": SHA512(),
}
OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey


class KeyRefused(ValueError):
    """Bytes that are no private key an agent can use. The text says why."""


@dataclass(frozen=True, slots=True)
class Agent:
    """One private key behind the agent's protocol. `comment` is what `ssh-add -l` shows."""

    key: PrivateKey = field(repr=False)
    comment: str

    @property
    def public(self) -> bytes:
        """The public key as SSH writes it in binary."""
        line = self.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return base64.b64decode(line.split()[1])

    def answer(self, request: bytes) -> bytes:
        """The answer to a message, both without their lengths. It computes; use a thread."""
        if request == bytes((REQUEST_IDENTITIES,)):
            identity = _string(self.public) + _string(self.comment.encode())
            return bytes((IDENTITIES_ANSWER,)) + (1).to_bytes(4, "big") + identity
        if request[:1] != bytes((SIGN_REQUEST,)):
            return FAILURE
        try:
            public, rest = _cut(request[1:])
            data, rest = _cut(rest)
            name, signature = _sign(self.key, data, int.from_bytes(rest, "big"))
        except ValueError:
            return FAILURE
        if public != self.public or len(rest) != 4:
            return FAILURE
        return bytes((SIGN_RESPONSE,)) + _string(_string(name.encode()) + _string(signature))


def load_agent(pem: bytes, comment: str) -> Agent:
    """The agent of a private key in OpenSSH's or PEM's form. It computes; use a thread.

    Raises KeyRefused for one that is encrypted, of another kind, or no key at all.
    """
    load = load_ssh_private_key if OPENSSH in pem else load_pem_private_key
    try:
        key = load(pem, None)
    except TypeError:
        raise KeyRefused(
            "The key is encrypted, and nobody is there to type the passphrase: store it without "
            "one (ssh-keygen -p)."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyRefused(
            "The text is no private key: store one as ssh-keygen writes it, whole, in OpenSSH's "
            "or PEM's form."
        ) from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and _curve(key) not in HASHES:
        raise KeyRefused(f"SSH knows no keys on the curve {key.curve.name}: use ed25519.")
    if not isinstance(key, PrivateKey):
        raise KeyRefused("The key is of a kind that is not supported: use ed25519, ecdsa or rsa.")
    return Agent(key, comment)


def _sign(key: PrivateKey, data: bytes, flags: int) -> tuple[str, bytes]:
    """The name of the algorithm, and the signature as it wants it."""
    if isinstance(key, Ed25519PrivateKey):
        return "ssh-ed25519", key.sign(data)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        name = _curve(key)
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(HASHES[name])))
        return f"ecdsa-sha2-{name}", _number(r) + _number(s)
    if flags & RSA_SHA2_256:
        return "rsa-sha2-256", key.sign(data, padding.PKCS1v15(), SHA256())
    if flags & RSA_SHA2_512:
        return "rsa-sha2-512", key.sign(data, padding.PKCS1v15(), SHA512())
    raise ValueError("That would be a signature with SHA-1.")


def _curve(key: ec.EllipticCurvePrivateKey) -> str:
    """SSH's name of a curve: NIST's (RFC 5656, 10.1)."""
    return key.curve.name.replace("secp", "nistp").removesuffix("r1")


def _string(data: bytes) -> bytes:
    """A `string` of RFC 4251: its length and its bytes."""
    return len(data).to_bytes(4, "big") + data


def _number(number: int) -> bytes:
    """An `mpint` of RFC 4251: one more bit than the number has, for the sign."""
    return _string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """The first `string`, and what comes after it. Raises ValueError."""
    end = 4 + int.from_bytes(data[:4], "big")
    if len(data) < max(end, 4):
        raise ValueError("A string breaks off.")
    return data[4:end], data[end:]
