"""One server process: started with a log, known again by pid and start time, stopped."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

READY_SECONDS = 60.0
STOP_SECONDS = 10.0
LOOK_SECONDS = 0.05
MARK = "DEVSTACK_FOLDER"
"""Set for every server, so that one of which no record was kept is still found."""
_children: dict[int, "subprocess.Popen[bytes]"] = {}


class ServerError(Exception):
    """A server did not come up; the text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A started server. `born` is the start time from /proc: with the pid it names one process."""

    name: str
    pid: int
    born: int
    log: str

    @property
    def alive(self) -> bool:
        """Whether this very process runs."""
        return self.born > 0 and birth(self.pid) == self.born

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """SIGTERM, then SIGKILL; what else runs in its process group goes with it."""
        self.signal(signal.SIGTERM)
        if not self._ended_within(seconds):
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the process group, and wait for the end."""
        with contextlib.suppress(ProcessLookupError):  # it may end between the look and the signal
            if self.alive:
                os.killpg(self.pid, signal.SIGKILL)
        self._ended_within(STOP_SECONDS)

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it is still the same one."""
        with contextlib.suppress(ProcessLookupError):
            if self.alive:
                os.kill(self.pid, number)

    def as_json(self) -> dict[str, Any]:
        """For the stack's state file."""
        return asdict(self)

    def _ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.alive:
            child = _children.get(self.pid)
            if child is not None and child.poll() is not None:
                break
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)
        child = _children.pop(self.pid, None)
        if child is not None:
            child.wait()
        return True


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: arguments, extra environment, and how to see that it is ready."""

    name: str
    arguments: Sequence[str]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)


def start(command: Command, directory: Path) -> Server:
    """Start the server in a session of its own; it is not awaited."""
    log = directory / f"{command.name}.log"
    with log.open("ab") as output:
        child = subprocess.Popen(
            list(command.arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env={**os.environ, **command.environment, MARK: str(directory)},
            start_new_session=True,
        )
    _children[child.pid] = child
    return Server(command.name, child.pid, birth(child.pid), str(log))


def await_ready(command: Command, server: Server, seconds: float = READY_SECONDS) -> Server:
    """The server, once ready. Raises ServerError, with its log, where it ends or is too slow."""
    deadline = time.monotonic() + seconds
    while True:
        # Alive first: what answers on the port of a server that ended is somebody else.
        ended = not server.alive
        if not ended and command.ready():
            return server
        if ended or time.monotonic() > deadline:
            what = "ended" if ended else f"was not ready within {seconds:.0f} s"
            server.stop()
            tail = Path(server.log).read_text(errors="replace")[-2000:]
            raise ServerError(f"{server.name} {what}. The end of {server.log}:\n{tail}")
        time.sleep(LOOK_SECONDS)


def started_in(folder: Path) -> list[Server]:
    """Every server of that folder, and what it started that leads a process group of its own."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end while we look, or belong to another user: then it is none of ours.
        with contextlib.suppress(OSError):
            pid = int(process.name)
            if mark in (process / "environ").read_bytes().split(b"\0") and os.getpgid(pid) == pid:
                name = (process / "comm").read_text().strip()
                found.append(Server(name, pid, birth(pid), str(folder / f"{name}.log")))
    return found


def birth(pid: int) -> int:
    """The start time of a process in clock ticks; 0 where it is not there or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listening(port: int) -> bool:
    """Whether something accepts on that port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
