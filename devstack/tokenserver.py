"""The token server of a registry: bearer tokens for who knows a password.

The two ways to ask are those of the distribution project: GET with basic authentication, and POST
with grant_type=password (docs/spec/auth/token.md and oauth.md). As a process it writes every
request to a log, without what is secret in it, so that a test sees which way was taken.
"""

import argparse
import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from devstack.registries import PASSWORD, USERNAME
from devstack.tokens import LIFE_SECONDS, Signer


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: by whom, "" for nobody and for who showed a wrong password, and for what."""

    method: str
    user: str
    scopes: list[str]


@dataclass
class TokenServer:
    """Whoever is known may do everything; a tenant, only below a namespace of their own name."""

    signer: Signer
    passwords: Mapping[str, str] = field(repr=False)
    tenants: bool = False
    posts: bool = True
    """Whether it knows POST; if not, it answers as servers do that know only GET."""
    url: str = ""
    seen: list[Asked] = field(default_factory=list)
    note: Callable[[Asked], None] = lambda _: None
    """Told of each request, as `seen` is."""

    async def answer(self, request: web.Request) -> web.Response:
        """One request for a token."""
        if request.method == "POST":
            if not self.posts:
                return web.Response(status=405)
            form = {key: str(value) for key, value in (await request.post()).items()}
            user, password = form.get("username", ""), form.get("password", "")
            scopes, nobody = form.get("scope", "").split(), False
        else:
            header = request.headers.get("Authorization", "").removeprefix("Basic ")
            user, _, password = base64.b64decode(header).decode().partition(":")
            asked = request.query.getall("scope", [])
            scopes, nobody = [one for scope in asked for one in scope.split()], not header
        known = self.passwords.get(user) == password
        self._saw(Asked(request.method, user if known else "", scopes))
        if not known and not nobody:
            return web.json_response({}, status=401)
        allowed = [access_of(scope) for scope in scopes if self._may(user, scope)]
        token = self.signer.token(user, allowed)
        said = {"token": token, "access_token": token, "expires_in": LIFE_SECONDS}
        return web.json_response(said)

    def _saw(self, asked: Asked) -> None:
        self.seen.append(asked)
        self.note(asked)

    def _may(self, user: str, scope: str) -> bool:
        return bool(user) and (not self.tenants or scope.startswith(f"repository:{user}/"))


def access_of(scope: str) -> dict[str, object]:
    """What one scope asks: `repository:team/app:pull,push`."""
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


@asynccontextmanager
async def serve_tokens(server: TokenServer, port: int = 0) -> AsyncIterator[TokenServer]:
    """Serve it on a port of loopback; on a free one, by default."""
    application = web.Application()
    application.router.add_route("*", "/token", server.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
        yield server
    finally:
        await runner.cleanup()


async def serve_for_ever(folder: Path, port: int) -> None:
    """Tokens for the one who may use the stack's registries; a line in tokens.jsonl for each."""

    def note(asked: Asked) -> None:
        line = {"method": asked.method, "known": bool(asked.user), "scopes": asked.scopes}
        with (folder / "tokens.jsonl").open("a") as lines:
            lines.write(json.dumps(line) + "\n")

    server = TokenServer(Signer(folder), {USERNAME: PASSWORD}, note=note)
    async with serve_tokens(server, port):
        await asyncio.Event().wait()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="devstack.tokenserver", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="with the key that signs")
    options = parser.parse_args()
    asyncio.run(serve_for_ever(options.folder, options.port))


if __name__ == "__main__":
    main()
