"""The stack's Docker Engines: what each kind is, that it builds, that it goes without trace."""

import http.client
import io
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import devstack
from bench.processes import appeared, find
from devstack.bridges import INTERFACES
from devstack.containers import shim_sockets
from devstack.engines import KINDS, Home, start_engine
from devstack.server import started_in

NAME = "test-engines"
TAR = {"Content-Type": "application/x-tar"}


@pytest.fixture
def own() -> Iterator[devstack.Stack]:
    """A stack of one test, whose engines nobody else uses."""
    yield devstack.up(NAME, _quiet)
    devstack.down(NAME)


@pytest.mark.parametrize("version", ["1", "2"], ids=["classic", "BuildKit"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_runs_steps_on_the_base_image(
    stack: devstack.Stack, kind: str, version: str
) -> None:
    stack.engine(kind, _quiet)
    home = Home(kind, stack.folder)
    image = f"made-{version}:latest"
    path = f"/build?version={version}&t={image}&nocache=1"
    status, said = _ask(home, "POST", path, _context(stack, "ip -o addr | grep -q eth0"))
    assert (status, b"error" in said) == (200, False), said
    assert _ask(home, "GET", f"/images/{image}/json")[0] == 200


@pytest.mark.parametrize(
    ("kind", "version", "experimental", "store"),
    [
        ("new", "2.0.0-beta.24", True, "overlay2"),
        ("containerd", "2.0.0-beta.24", True, "overlayfs"),
        ("plain", "2.0.0-beta.24", False, "overlay2"),
        ("tls", "2.0.0-beta.24", True, "overlay2"),
        ("old", "20.10.24+dfsg1", True, "overlay2"),
    ],
)
def test_a_kind_is_what_it_is_called(
    stack: devstack.Stack, kind: str, version: str, experimental: bool, store: str
) -> None:
    stack.engine(kind, _quiet)
    home = Home(kind, stack.folder)
    assert _ask(home, "GET", "/_ping") == (200, b"OK")
    info = json.loads(_ask(home, "GET", "/info")[1])
    assert (info["ServerVersion"], info["ExperimentalBuild"]) == (version, experimental)
    assert info["Driver"] == store


def test_an_engine_that_runs_is_found_by_another_process(stack: devstack.Stack) -> None:
    running = stack.engine("new", _quiet)
    command = [sys.executable, "-m", "devstack", "engine", "new", "--name", stack.name]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.strip() == running.address
    assert stack.engine("new", _quiet).server == running.server


@pytest.mark.parametrize("known", [True, False], ids=["with its certificate", "without one"])
def test_over_tls_a_client_needs_a_certificate(stack: devstack.Stack, known: bool) -> None:
    engine = stack.engine("tls", _quiet)
    assert engine.certificates is not None
    context = ssl.create_default_context(cafile=str(engine.certificates / "ca.pem"))
    if known:
        context.load_cert_chain(engine.certificates / "cert.pem", engine.certificates / "key.pem")
    address = urlsplit(engine.address)
    assert address.hostname is not None
    connection = http.client.HTTPSConnection(address.hostname, address.port, context=context)
    try:
        connection.request("GET", "/_ping")
        answer = connection.getresponse().read()
    except OSError as error:  # The refusal may come as an alert, or with the connection gone.
        answer = type(error).__name__.encode()
    finally:
        connection.close()
    assert (answer == b"OK") == known, answer


@pytest.mark.parametrize("killed", [False, True], ids=["that lives", "that was killed"])
async def test_down_leaves_nothing_of_engines_in_the_middle_of_builds(
    own: devstack.Stack, killed: bool
) -> None:
    homes = [Home(kind, own.folder) for kind in KINDS]
    builds, sleeps = [], []
    for number, home in enumerate(homes):
        own.engine(home.kind, _quiet)
        for version in (1, 2):
            sleeps.append(f"9100{number}{version}")
            builds.append(_start_build(own, home, version, f"sleep {sleeps[-1]}"))
    for sleep in sleeps:
        await appeared(sleep)
    shims = shim_sockets(own.folder)
    assert len(shims) == len(homes)
    if killed:
        for server in own.servers.values():
            os.kill(server.pid, signal.SIGKILL)
    devstack.down(NAME)
    for build in builds:
        build.join(30)
    assert started_in(own.folder) == []
    assert [sleep for sleep in sleeps if find(sleep)] == []
    assert [shim for shim in shims if shim.exists()] == []
    assert [home.bridge for home in homes if (INTERFACES / home.bridge).exists()] == []
    assert f" {own.folder}/" not in Path("/proc/mounts").read_text()
    assert not own.folder.exists()


def test_where_a_socket_would_have_too_long_a_path_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="choose a shorter name for the stack"):
        start_engine(Home("new", Path("/" + "long" * 20)), _quiet)


def test_a_kind_that_there_is_none_of_is_a_key_error(stack: devstack.Stack) -> None:
    with pytest.raises(KeyError, match="podman"):
        stack.engine("podman", _quiet)


def _quiet(_: str) -> None:
    """Nobody is told."""


def _ask(home: Home, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """The engine's whole answer, over its unix socket."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(60)
    connection.sock.connect(str(home.socket))
    try:
        connection.request(method, path, body, TAR if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _start_build(stack: devstack.Stack, home: Home, version: int, step: str) -> "threading.Thread":
    """A build in a thread of its own; whether it ends well is nobody's business."""

    def build() -> None:
        try:
            _ask(home, "POST", f"/build?version={version}", _context(stack, step))
        except (OSError, http.client.HTTPException):
            return

    thread = threading.Thread(target=build, daemon=True)
    thread.start()
    return thread


def _context(stack: devstack.Stack, step: str) -> bytes:
    buffer = io.BytesIO()
    text = f"FROM {stack.base_image}\nRUN {step}\n".encode()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()
