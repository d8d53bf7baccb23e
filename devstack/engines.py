"""Docker Engines: the newest with either image store, a plain one, one over TLS, and an old one.

They start when they are first asked for, and live as long as their stack.
"""

import http.client
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import trustme

from devstack.binaries import Say
from devstack.bridges import add_bridge, bridge_of
from devstack.engine_programs import new_programs, old_programs
from devstack.server import Command, Server, await_ready, free_port, start

READY_SECONDS = 60.0
LONGEST_PATH = 107
"""Bytes of a unix socket's path, of which Linux keeps 108 with the zero at the end."""
LONGEST_SOCKET = "containerd/containerd.sock.ttrpc"
"""The longest path of a socket that an engine makes below its exec root."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to start an engine."""

    arguments: tuple[str, ...]
    old: bool = False
    tls: bool = False


GRAPH = "--feature=containerd-snapshotter=false"
KINDS: dict[str, Kind] = {
    "new": Kind(("--experimental", GRAPH)),
    "containerd": Kind(("--experimental", "--feature=containerd-snapshotter=true")),
    "plain": Kind((GRAPH,)),
    "tls": Kind(("--experimental", GRAPH), tls=True),
    "old": Kind(("--experimental", "--storage-driver=overlay2"), old=True),
}


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine: where it listens (unix:///path or tcp://host:port), and its process."""

    address: str
    kind: str
    server: Server
    certificates: Path | None = None
    """Of a kind with TLS, the folder with a client's ca.pem, cert.pem and key.pem."""


@dataclass(frozen=True, slots=True)
class Home:
    """The files of one engine below its stack's folder."""

    kind: str
    folder: Path

    @property
    def name(self) -> str:
        """The server's name in the stack."""
        return f"engine-{self.kind}"

    @property
    def own(self) -> Path:
        """The engine's own folder."""
        return self.folder / self.name

    @property
    def socket(self) -> Path:
        """Where every kind listens."""
        return self.folder / f"{self.name}.sock"

    @property
    def exec_root(self) -> Path:
        """For what a run leaves; short, since containerd's sockets lie below it."""
        return self.folder / "x" / self.kind

    @property
    def bridge(self) -> str:
        """The bridge that its containers are in."""
        return bridge_of(self.folder, self.kind)

    @property
    def port(self) -> Path:
        """Where the port of a kind with TLS is written."""
        return self.own / "port"

    @property
    def client(self) -> Path:
        """The folder of what a client needs, with the names that Docker's own client wants."""
        return self.own / "client"

    def engine(self, server: Server) -> Engine:
        """The engine that this server is."""
        if KINDS[self.kind].tls:
            address = f"tcp://127.0.0.1:{self.port.read_text()}"
            return Engine(address, self.kind, server, self.client)
        return Engine(f"unix://{self.socket}", self.kind, server)


def start_engine(home: Home, say: Say) -> Server:
    """Start the engine. Raises MissingProgramError, ServerError, or RuntimeError: no bridge."""
    longest = home.exec_root / LONGEST_SOCKET
    if len(os.fsencode(longest)) > LONGEST_PATH:
        raise RuntimeError(
            f"An engine in {home.folder} would need the socket {longest}, and Linux allows "
            f"{LONGEST_PATH} bytes: choose a shorter name for the stack, or another "
            "XDG_CACHE_HOME."
        )
    kind = KINDS[home.kind]
    folders = old_programs(say) if kind.old else new_programs(say)
    home.own.mkdir(exist_ok=True)
    home.exec_root.mkdir(parents=True, exist_ok=True)
    add_bridge(home.bridge)
    command = dockerd(home, folders)
    return await_ready(command, start(command, home.folder), READY_SECONDS)


def dockerd(home: Home, folders: list[Path]) -> Command:
    """How it is started: it changes nothing of the machine's network but its own bridge."""
    kind = KINDS[home.kind]
    config = home.own / "daemon.json"
    # The old one would write a key of its own into /etc/docker.
    own_key = {"deprecated-key-path": str(home.own / "key.json")} if kind.old else {}
    config.write_text(json.dumps(own_key))
    arguments = [
        str(folders[0] / "dockerd"),
        f"--config-file={config}",
        f"--data-root={home.own / 'data'}",
        f"--exec-root={home.exec_root}",
        f"--pidfile={home.own / 'pid'}",
        f"--host=unix://{home.socket}",
        f"--bridge={home.bridge}",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--ip-masq=false",
        "--userland-proxy=false",
        *kind.arguments,
        *(_over_tls(home) if kind.tls else ()),
    ]
    environment = {
        "PATH": os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]),
        "SSL_CERT_FILE": str(home.folder / "registry-ca.crt"),
    }
    return Command(home.name, arguments, lambda: answers(home), environment)


def answers(home: Home) -> bool:
    """Whether the engine answers a ping."""
    connection = http.client.HTTPConnection("localhost", timeout=2)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(2)
    try:
        connection.sock.connect(str(home.socket))
        connection.request("GET", "/_ping")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _over_tls(home: Home) -> list[str]:
    """It listens on a port too, for clients with a certificate of its own authority."""
    authority = trustme.CA()
    home.client.mkdir(exist_ok=True)
    for folder, name in ((home.own, "127.0.0.1"), (home.client, "client.example.com")):
        certificate = authority.issue_cert(name)
        authority.cert_pem.write_to_path(folder / "ca.pem")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    port = free_port()
    home.port.write_text(str(port))
    return [
        f"--host=tcp://127.0.0.1:{port}",
        "--tlsverify",
        f"--tlscacert={home.own / 'ca.pem'}",
        f"--tlscert={home.own / 'cert.pem'}",
        f"--tlskey={home.own / 'key.pem'}",
    ]
