"""A token service for a real registry: who may do what there, and whom it was asked by.

It follows the distribution project's "token authentication" and "OAuth2 token authentication".
"""

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ISSUER, SERVICE = "issuer.test", "registry.test"


@dataclass
class TokenService:
    """Everybody may do everything below a namespace of their own name, and nothing elsewhere."""

    passwords: dict[str, str]
    posts: bool = True
    """Whether it knows POST; if not, it answers as services do that know only GET."""
    url: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Method and user ("" for nobody) of every request that got a token."""
    _key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def keys(self) -> str:
        """The JWKS that a registry trusts."""
        public = _text(self._key.public_key().public_bytes_raw())
        return json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": public}]})

    def auth(self, folder: Path) -> dict[str, object]:
        """The registry's section `auth`."""
        (folder / "jwks.json").write_text(self.keys())
        options = {"realm": self.url, "service": SERVICE, "issuer": ISSUER}
        return {"token": {**options, "jwks": str(folder / "jwks.json")}}

    async def answer(self, request: web.Request) -> web.Response:
        """One request for a token."""
        if request.method == "POST":
            if not self.posts:
                return web.Response(status=405)
            form = {key: str(value) for key, value in (await request.post()).items()}
            user, password = form.get("username", ""), form.get("password", "")
            scopes = form["scope"].split()
        else:
            header = request.headers.get("Authorization", "").removeprefix("Basic ")
            user, _, password = base64.b64decode(header).decode().partition(":")
            scopes = request.query.getall("scope", [])
        if user and self.passwords.get(user) != password:
            return web.Response(status=401)
        self.seen.append((request.method, user))
        token = self._token(user, scopes)
        return web.json_response({"token": token, "access_token": token, "expires_in": 300})

    def _token(self, user: str, scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            if user and name.startswith(f"{user}/"):
                access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": SERVICE, "sub": user, "access": access}
        times = {"exp": now + 300, "nbf": now - 5, "iat": now}
        header = {"alg": "EdDSA", "typ": "JWT", "kid": "1"}
        parts = (_text(json.dumps(part).encode()) for part in (header, {**claims, **times}))
        signed = ".".join(parts)
        return f"{signed}.{_text(self._key.sign(signed.encode()))}"


@asynccontextmanager
async def serve_tokens(service: TokenService) -> AsyncIterator[TokenService]:
    """Serve it on a free port of loopback."""
    application = web.Application()
    application.router.add_route("*", "/token", service.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    yield service
    await runner.cleanup()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
