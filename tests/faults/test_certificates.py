"""A registry that shows a certificate which nobody knows."""

import asyncio
from pathlib import Path

import pytest

import devstack
from devstack.builds import Builds
from devstack.components import Place, buildkitd
from devstack.operator import start_operator
from devstack.registries import Registries
from devstack.server import Command, Server, await_ready, free_port, start
from tests.support.specs import HELLO


def started(command: Command, folder: Path) -> Server:
    """The server, once it is ready."""
    return await_ready(command, start(command, folder))


@pytest.mark.row("F35")
async def test_a_registry_whose_certificate_nobody_knows_is_never_met_in_plain_text(
    stack: devstack.Stack, builds: Builds, tmp_path: Path
) -> None:
    ports = {"tls": free_port()}
    theirs, known = Registries(tmp_path / "registry", ports), Registries(tmp_path / "known", ports)
    for one in (theirs, known):
        one.folder.mkdir()
        await asyncio.to_thread(one.prepare)
    address = f"unix://{tmp_path}/b.sock"
    place = Place(stack.binaries["buildkitd"], tmp_path)
    commands = [
        theirs.one("tls", stack.binaries["registry"]),
        # The daemon trusts another authority than the one that signed.
        buildkitd(place, address, known),
    ]
    servers = [await asyncio.to_thread(started, command, tmp_path) for command in commands]
    operator = await asyncio.to_thread(
        start_operator,
        tmp_path / "operator",
        stack.operator_kubeconfig,
        namespaces=[builds.namespace],
        pools=[{"workers": [address], "slots": 2}],
    )
    try:
        spec = {"source": {"inline": {"files": HELLO}}, "images": [f"{theirs['tls']}/a:1"]}
        await builds.create("unknown", spec)
        ended = (await builds.ended("unknown")).status
        assert ended["failure"]["reason"] == "TLSFailed", ended
        assert (ended["attempt"], ended["failure"]["retryable"]) == (1, False)
        said = await asyncio.to_thread(Path(servers[0].log).read_text)
        assert "TLS handshake error" in said
        assert "HTTP request to an HTTPS server" not in said
    finally:
        await asyncio.to_thread(operator.stop)
        for server in servers:
            await asyncio.to_thread(server.stop)
