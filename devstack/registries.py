"""Registries: an open one, and three that ask who one is or show who they are."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from devstack.server import Command, free_port, listening
from devstack.tokens import Signer

USERNAME, PASSWORD = "builder", "open-sesame-devstack"  # of throw-away registries
HTPASSWD = f"{USERNAME}:$2b$05$abcdefghijklmnopqrstuuC6Lwb/8UC5Jp33gJW5OA706GdSw8fay\n"
"""The password by bcrypt, which is what the registry reads."""
PRIVATE = ("htpasswd", "token", "tls")
"""The registries beside the open one: basic authentication; bearer tokens; https and basic."""


@dataclass(frozen=True, slots=True)
class Registries:
    """Where each listens, as host:port, and the authority of the one with https."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def hosts(self) -> dict[str, str]:
        """By name; `plain` is the open one."""
        return {name: f"127.0.0.1:{port}" for name, port in self.ports.items() if name != "tokens"}

    def __getitem__(self, name: str) -> str:
        return self.hosts[name]

    @property
    def ca(self) -> Path:
        """The certificate of the authority that signed the https registry's."""
        return self.folder / "registry-ca.crt"

    @property
    def token_log(self) -> Path:
        """A JSON line for each request to the token server: method, known, scopes."""
        return self.folder / "tokens.jsonl"

    def prepare(self) -> None:
        """Write keys, certificates and passwords."""
        authority = trustme.CA()
        server = authority.issue_cert("127.0.0.1", "localhost")
        authority.cert_pem.write_to_path(self.ca)
        server.private_key_pem.write_to_path(self.folder / "registry.key")
        (self.folder / "registry.crt").write_bytes(
            b"".join(part.bytes() for part in server.cert_chain_pems)
        )
        (self.folder / "htpasswd").write_text(HTPASSWD)

    def commands(self, program: Path) -> list[Command]:
        """How all of them are started."""
        served = [self._registry(name, program) for name in ("plain", *PRIVATE)]
        port = self.ports["tokens"]
        arguments = ["-m", "devstack.tokenserver", f"--port={port}", f"--folder={self.folder}"]
        root = str(Path(__file__).parent.parent)
        tokens = Command(
            "tokens",
            [sys.executable, *arguments],
            lambda: listening(port),
            {"PYTHONPATH": root},
        )
        return [*served, tokens]

    def one(self, name: str, program: Path) -> Command:
        """How one of them is started, with what it held before."""
        return self._registry(name, program)

    def _registry(self, name: str, program: Path) -> Command:
        full = "registry" if name == "plain" else f"registry-{name}"
        port = self.ports[name]
        http: dict[str, Any] = {"addr": f"127.0.0.1:{port}"}
        if name == "tls":
            http["tls"] = {
                "certificate": str(self.folder / "registry.crt"),
                "key": str(self.folder / "registry.key"),
            }
        config = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / full)},
                "delete": {"enabled": True},
            },
            "http": http,
            **self._auth(name),
        }
        path = self.folder / f"{full}.json"
        path.write_text(json.dumps(config))
        return Command(
            full,
            [str(program), "serve", str(path)],
            lambda: listening(port),
            {"OTEL_TRACES_EXPORTER": "none"},
        )

    def _auth(self, name: str) -> dict[str, Any]:
        match name:
            case "plain":
                return {}
            case "token":
                # crane follows no realm that is a private address, but it follows a name.
                realm = f"http://localhost:{self.ports['tokens']}/token"
                return {"auth": Signer(self.folder).section(realm)}
            case _:
                passwords = {"realm": "devstack", "path": str(self.folder / "htpasswd")}
                return {"auth": {"htpasswd": passwords}}


def free_registries(folder: Path) -> Registries:
    """Registries on ports that nobody listens on now."""
    return Registries(folder, {name: free_port() for name in ("plain", *PRIVATE, "tokens")})
