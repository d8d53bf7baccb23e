"""Bearer tokens for a registry: who signs them, and what makes the registry trust him.

The tokens are those of the distribution project (docs/spec/auth/jwt.md).
"""

import base64
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ISSUER, SERVICE = "devstack", "registry"
LIFE_SECONDS = 300


class Signer:
    """Makes tokens that a registry with this folder's keys trusts. Its own key is made once."""

    def __init__(self, folder: Path, life_seconds: int = LIFE_SECONDS) -> None:
        self._life = life_seconds
        self._keys, secret = folder / "jwks.json", folder / "token.key"
        if not secret.exists():
            secret.touch(0o600)
            secret.write_bytes(Ed25519PrivateKey.generate().private_bytes_raw())
        self._key = Ed25519PrivateKey.from_private_bytes(secret.read_bytes())
        public = _text(self._key.public_key().public_bytes_raw())
        key = {"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": public}
        self._keys.write_text(json.dumps({"keys": [key]}))

    def section(self, realm: str) -> dict[str, Any]:
        """The section `auth` of a registry whose token server is at this URL."""
        options = {"realm": realm, "service": SERVICE, "issuer": ISSUER}
        return {"token": {**options, "jwks": str(self._keys)}}

    def token(self, user: str, access: Sequence[dict[str, object]]) -> str:
        """A token for the user, "" for nobody, that allows so much."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": SERVICE, "sub": user, "access": list(access)}
        times = {"exp": now + self._life, "nbf": now - 100, "iat": now}
        header = {"alg": "EdDSA", "typ": "JWT", "kid": "1"}
        parts = (_text(json.dumps(part).encode()) for part in (header, {**claims, **times}))
        signed = ".".join(parts)
        return f"{signed}.{_text(self._key.sign(signed.encode()))}"


def _text(data: bytes) -> str:
    """Base64 as JWTs have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
