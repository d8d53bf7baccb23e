"""A repository behind an SSH server: opened by a key that lies on no disk of ours."""

import getpass
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from devstack.gitserver import make_repository
from devstack.server import Command, await_ready, free_port, start
from imagewright.api.reason import Reason
from imagewright.caches.sources import Limits, SourceCache
from imagewright.domain.credential import Login
from imagewright.domain.plan import Git
from imagewright.ports import Rejected, Unavailable
from imagewright.sources.egress import Egress
from imagewright.sources.fetch import SourceFetcher
from imagewright.sources.git import GitFetcher

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
pytestmark = pytest.mark.skipif(SSHD is None, reason="there is no sshd")


@dataclass
class Held:
    """A keyring in which every Secret is this one."""

    held: Mapping[str, bytes]

    async def secret(self, name: str) -> Mapping[str, bytes]:
        return self.held

    async def config(self, name: str) -> Mapping[str, bytes]:
        return {}

    async def login(self, host: str) -> Login | None:
        return None

    async def logins(self) -> Mapping[str, Login]:
        return {}

    def masks(self) -> frozenset[str]:
        return frozenset()


@dataclass(frozen=True)
class Server:
    """Where it is, and what opens it."""

    url: str
    key: bytes
    known_hosts: bytes
    commit: str


def _key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    commit = make_repository(tmp_path / "app", {"Dockerfile": "FROM scratch\n"})
    host, ours = _key(tmp_path / "host"), _key(tmp_path / "ours")
    (tmp_path / "authorized").write_text(ours)
    Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    config = {
        "HostKey": tmp_path / "host",
        "AuthorizedKeysFile": tmp_path / "authorized",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "ListenAddress": f"127.0.0.1:{port}",
        "PasswordAuthentication": "no",
    }
    (tmp_path / "config").write_text("".join(f"{a} {b}\n" for a, b in config.items()))

    def ready() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    assert SSHD is not None
    command = Command("sshd", [SSHD, "-D", "-e", "-f", str(tmp_path / "config")], ready)
    process = await_ready(command, start(command, tmp_path))
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{tmp_path}/app"
    known = f"[127.0.0.1]:{port} {host}".encode()
    yield Server(url, (tmp_path / "ours").read_bytes(), known, commit)
    process.stop()


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[SourceFetcher]:
    async with SourceCache(tmp_path / "cache", Limits()) as cache:
        yield SourceFetcher(cache, GitFetcher(Egress(allow_loopback=True)))


@pytest.mark.parametrize("known", [True, False], ids=["to a known host", "to any host"])
async def test_a_key_opens_a_repository(
    sources: SourceFetcher, server: Server, known: bool
) -> None:
    held = {"ssh-privatekey": server.key} | ({"known_hosts": server.known_hosts} if known else {})
    async with sources.tree(Git(server.url, "main", secret="s"), Held(held)) as tree:
        assert tree.revision == server.commit
        assert (tree.path / "Dockerfile").exists()


async def test_an_unknown_host_is_not_trusted(
    sources: SourceFetcher, server: Server, tmp_path: Path
) -> None:
    lie = server.known_hosts.split()[0].decode() + " " + _key(tmp_path / "other")
    held = Held({"ssh-privatekey": server.key, "known_hosts": lie.encode()})
    with pytest.raises(Unavailable, match="host key that is trusted") as caught:
        await sources.resolve(Git(server.url, secret="s"), held)
    assert caught.value.reason == Reason.TLS_FAILED


async def test_another_key_is_refused(
    sources: SourceFetcher, server: Server, tmp_path: Path
) -> None:
    _key(tmp_path / "other")
    held = Held({"ssh-privatekey": (tmp_path / "other").read_bytes()})
    with pytest.raises(Rejected, match="does not accept") as caught:
        await sources.resolve(Git(server.url, secret="s"), held)
    assert caught.value.reason == Reason.INVALID_CREDENTIALS
