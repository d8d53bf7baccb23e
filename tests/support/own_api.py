"""A kube-apiserver and an etcd of a module's own, which its tests may kill and stop."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import devstack
from devstack.components import ApiServer, Place, etcd
from devstack.identity import admin_kubeconfig, operator_kubeconfig, run
from devstack.server import Command, Server, await_ready, free_port, start


@dataclass(slots=True)
class OwnApi:
    """Both servers; the kubeconfigs are an admin's, and the operator's under the chart's role."""

    folder: Path
    admin: Path
    operator: Path
    kubectl_program: Path
    command: Command
    server: Server
    etcd: Server

    def kill(self) -> None:
        """SIGKILL for the API server."""
        self.server.kill()

    def restart(self) -> None:
        """A new one at the old address, ready. Raises ServerError."""
        self.server = await_ready(self.command, start(self.command, self.folder))

    def freeze(self) -> None:
        """etcd neither answers nor goes away."""
        self.etcd.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self.etcd.signal(signal.SIGCONT)

    def kubectl(self, *arguments: str) -> str:
        """What kubectl prints as an admin. Raises RuntimeError with what it said."""
        return run([str(self.kubectl_program), f"--kubeconfig={self.admin}", *arguments]).strip()


@pytest.fixture(scope="module")
def own_api(stack: devstack.Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnApi]:
    """Such a pair, with our kinds and the chart's roles."""
    folder, tools = tmp_path_factory.mktemp("api"), stack.binaries
    port = free_port()
    api = ApiServer(folder, free_port())
    api.prepare()
    store = etcd(Place(tools["etcd"], folder), port, free_port())
    command = api.command(tools["kube-apiserver"], port)
    started = await_ready(store, start(store, folder))
    try:
        server = await_ready(command, start(command, folder))
        admin = admin_kubeconfig(api, folder / "admin.kubeconfig")
        operator = operator_kubeconfig(tools, folder)
        found = OwnApi(folder, admin, operator, tools["kubectl"], command, server, started)
        yield found
        found.server.kill()
    finally:
        started.kill()
