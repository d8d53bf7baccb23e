"""The whole stack: up, down, and what is known of it between the two."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from devstack.base_image import push_base_image
from devstack.binaries import CACHE, Say, binaries, locked
from devstack.bridges import remove_bridge
from devstack.components import ApiServer, Place, buildkitd, etcd
from devstack.containers import remove_containers, shim_sockets
from devstack.debian import install_missing
from devstack.engines import KINDS, Engine, Home, start_engine
from devstack.engines import answers as engine_answers
from devstack.identity import admin_kubeconfig, operator_kubeconfig, renew_token
from devstack.registries import PRIVATE, Registries, free_registries
from devstack.server import (
    Command,
    Server,
    ServerError,
    await_ready,
    free_port,
    listening,
    start,
    started_in,
)

RUN = CACHE / "run"
NOTHING: Mapping[str, object] = {}
ANSWER_SECONDS = 5.0
STOP_SECONDS = 2.0
"""kube-apiserver would wait a minute for its clients; nothing here is worth that."""
TRIES = 3
"""A free port can be taken by somebody else before our server has it."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack: what a test, the demo or a person needs of it."""

    name: str
    folder: Path
    kubeconfig: Path
    operator_kubeconfig: Path
    buildkit: str
    registries: Registries
    etcd: str
    """Its URL."""
    audit_log: Path
    binaries: dict[str, Path] = field(repr=False)
    servers: dict[str, Server] = field(repr=False)

    @property
    def registry(self) -> str:
        """The open registry."""
        return self.registries.hosts["plain"]

    @property
    def base_image(self) -> str:
        """A base with a shell, in the stack's own registry."""
        return f"{self.registry}/busybox:latest"

    def answers(self) -> dict[str, bool]:
        """Server by server, whether it lives and serves; etcd is asked through the API server."""
        kubectl = [str(self.binaries["kubectl"]), f"--kubeconfig={self.kubeconfig}"]
        api = _succeeds([*kubectl, "get", "--raw", "/readyz"])
        asked = {
            "etcd": api,
            "registry": _succeeds(
                [str(self.binaries["crane"]), "catalog", self.registry, "--insecure"]
            ),
            "buildkitd": _succeeds(
                [str(self.binaries["buildctl"]), "--addr", self.buildkit, "debug", "workers"]
            ),
            "kube-apiserver": api,
            **{f"registry-{name}": listening(self.registries.ports[name]) for name in PRIVATE},
            "tokens": listening(self.registries.ports["tokens"]),
        }
        for home in (Home(kind, self.folder) for kind in KINDS):
            if home.name in self.servers:
                asked[home.name] = engine_answers(home)
        return {name: one.alive and asked[name] for name, one in self.servers.items()}

    def start_buildkitd(self) -> Server:
        """A new buildkitd at the old address and root, after the last one was ended."""
        place = Place(self.binaries["buildkitd"], self.folder)
        return self._restart(buildkitd(place, self.buildkit, self.registries))

    def start_registry(self) -> Server:
        """A new open registry at the old address with the old content."""
        return self._restart(self.registries.one("plain", self.binaries["registry"]))

    def engine(self, kind: str, say: Say = print) -> Engine:
        """The Docker Engine of that kind, started where none runs yet.

        Raises KeyError for a kind that there is none of (devstack.engines.KINDS).
        """
        if kind not in KINDS:
            raise KeyError(kind)
        home = Home(kind, self.folder)
        with locked(self.folder / "engines.lock"):
            # Another process may have started it since the state was read.
            known = {server.name: server for server in _servers(self.folder)}
            running = known.get(home.name)
            if running is None or not running.alive:
                running = start_engine(home, say)
                self._keep({**known, home.name: running})
        self.servers[home.name] = running
        return home.engine(running)

    def _keep(self, servers: dict[str, Server]) -> None:
        more = {
            "buildkit": self.buildkit,
            "registries": self.registries.ports,
            "etcd": self.etcd,
        }
        _write_state(self.folder, list(servers.values()), more)

    def _restart(self, command: Command) -> Server:
        server = await_ready(command, start(command, self.folder))
        self.servers[command.name] = server
        self._keep(self.servers)
        return server


def up(name: str = "default", say: Say = print) -> Stack:
    """The stack of that name: the one that runs, or a new one. Raises ServerError and its like."""
    install_missing(say)
    tools = binaries(say)
    with _locked(name):
        running = load(name, tools)
        if running is not None and all(running.answers().values()):
            renew_token(tools, running.folder)
            say(f"The stack {name} is up.")
            return running
        _take_down(name)
        return _start_afresh(name, tools)


def _start_afresh(name: str, tools: dict[str, Path]) -> Stack:
    for left in range(TRIES - 1, -1, -1):
        try:
            return _start(name, tools)
        except ServerError:
            # The error names the logs, so the last try leaves them.
            _take_down(name, keep_logs=not left)
            if not left:
                raise
        except BaseException:
            _take_down(name, keep_logs=True)
            raise
    raise AssertionError("the last try raises or returns")


def down(name: str = "default", *, keep_logs: bool = False) -> None:
    """Stop the stack, whatever state it is in, and remove its files (but logs, where asked)."""
    with _locked(name):
        _take_down(name, keep_logs=keep_logs)


def _locked(name: str) -> AbstractContextManager[None]:
    """Two that start or stop the same stack at once would each lose the other's servers."""
    RUN.mkdir(parents=True, exist_ok=True)
    return locked(RUN / f"{name}.lock")


def _take_down(name: str, *, keep_logs: bool = False) -> None:
    folder = RUN / name
    _stop(folder)
    for socket in shim_sockets(folder):
        socket.unlink(missing_ok=True)
    remove_containers(folder)
    for kind in KINDS:
        remove_bridge(Home(kind, folder).bridge)
    unmount(folder)
    if not folder.exists():
        return
    if keep_logs:
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        return
    shutil.rmtree(folder, ignore_errors=True)


def _stop(folder: Path) -> None:
    """End all servers within the same seconds, then what they started meanwhile."""
    # The state file says what `up` started; a restarted server, and one that was started
    # when `up` was killed, are known by their environment only.
    servers = {server.pid: server for server in [*_servers(folder), *started_in(folder)]}
    for server in servers.values():
        server.signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for server in servers.values():
        server.stop(max(0.0, deadline - time.monotonic()))
    for server in started_in(folder):
        server.kill()


def load(name: str, tools: dict[str, Path]) -> Stack | None:
    """What the state file says of the stack; None where there is none."""
    folder = RUN / name
    try:
        state = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        return None
    if "registries" not in state or "etcd" not in state:
        return None
    return Stack(
        name=name,
        folder=folder,
        kubeconfig=folder / "admin.kubeconfig",
        operator_kubeconfig=folder / "operator.kubeconfig",
        buildkit=state["buildkit"],
        registries=Registries(folder, state["registries"]),
        etcd=state["etcd"],
        audit_log=folder / "audit.log",
        binaries=tools,
        servers={server.name: server for server in _servers(folder)},
    )


def _start(name: str, tools: dict[str, Path]) -> Stack:
    folder = RUN / name
    folder.mkdir(parents=True, exist_ok=True)
    etcd_port = free_port()
    address = f"unix://{folder / 'buildkitd.sock'}"
    api = ApiServer(folder, free_port())
    api.prepare()
    registries = free_registries(folder)
    registries.prepare()
    commands = [
        etcd(Place(tools["etcd"], folder), etcd_port, free_port()),
        *registries.commands(tools["registry"]),
        buildkitd(Place(tools["buildkitd"], folder), address, registries),
        api.command(tools["kube-apiserver"], etcd_port),
    ]
    _start_all(commands, folder)
    admin_kubeconfig(api, folder / "admin.kubeconfig")
    operator_kubeconfig(tools, folder)
    push_base_image(tools, address, f"{registries.hosts['plain']}/busybox:latest", folder)
    url = f"http://127.0.0.1:{etcd_port}"
    more = {"buildkit": address, "registries": registries.ports, "etcd": url}
    _write_state(folder, _servers(folder), more)
    stack = load(name, tools)
    if stack is None:
        raise ServerError(f"The state of {name} in {folder} cannot be read back.")
    return stack


def _start_all(commands: list[Command], folder: Path) -> None:
    """Start all side by side; what is started is known at once, so that it can be stopped."""
    servers = []
    for command in commands:
        servers.append(start(command, folder))
        _write_state(folder, servers)
    for command, server in zip(commands, servers, strict=True):
        await_ready(command, server)


def _succeeds(command: list[str]) -> bool:
    try:
        ended = subprocess.run(command, capture_output=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


def _write_state(
    folder: Path, servers: list[Server], more: Mapping[str, object] = NOTHING
) -> None:
    state = {"servers": [server.as_json() for server in servers], **more}
    fresh = folder / "state.json.new"
    fresh.write_text(json.dumps(state))
    fresh.rename(folder / "state.json")


def _servers(folder: Path) -> list[Server]:
    try:
        state = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        return []
    return [Server(**one) for one in state["servers"]]


def unmount(folder: Path) -> None:
    """A buildkitd that was killed leaves mounts behind, and its folder could not be removed."""
    below = f"{folder}/"
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((one for one in mounts if one.startswith(below)), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
