"""Operators in a fifth of the time: forked from a process that has imported everything.

`python -m tests.faults.zygote FD` is that process: it imports the operator, makes no loop, no
thread and no gRPC object, and forks an operator for each line that it reads. Such an operator is a
process of its own with its own arguments, log and folder for temporary files.
"""

import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

BEGIN_SECONDS = 20.0
LOOK_SECONDS = 0.005
CHANCE = 0.2
"""Of the longest pause between two attempts."""


@dataclass(slots=True)
class Forked:
    """An operator that was forked. `handle` is a pidfd, so that nobody else is ever signalled."""

    pid: int
    handle: int
    log: Path
    scratch: Path
    """Where it keeps its temporary files."""
    ops_port: int = 0

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return not self._ended(0)

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns. Nothing happens to one that is gone already."""
        self._signal(signal.SIGKILL)
        self._ended(10)

    def stop(self, seconds: float = 15) -> None:
        """SIGTERM, and SIGKILL where that does not end it in time."""
        self._signal(signal.SIGTERM)
        if not self._ended(seconds):
            self.kill()

    def close(self) -> None:
        """SIGKILL, and forget it: the last that may be asked of it."""
        self.kill()
        os.close(self.handle)

    def events(self) -> list[dict[str, Any]]:
        """The log's lines; the one that is being written is not read yet."""
        whole = self.log.read_text().split("\n")[:-1]
        return [json.loads(line) for line in whole if line[:1] == "{"]

    def begun(self, seconds: float = BEGIN_SECONDS) -> Self:
        """Wait until it watches. Raises RuntimeError, with its log's end, where it does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.alive:
            told = {event.get("event"): event for event in self.events()}
            if "Watching" in told:
                self.ops_port = int(told["Operator began"]["ops_port"])
                return self
            time.sleep(LOOK_SECONDS)
        self.kill()
        raise RuntimeError(f"The operator did not begin: {self.log.read_text()[-2000:]}")

    def _signal(self, number: int) -> None:
        if self.alive:
            signal.pidfd_send_signal(self.handle, number)

    def _ended(self, seconds: float) -> bool:
        """Whether it ends within so many seconds: a pidfd can be read once its process ended."""
        return bool(select.select([self.handle], [], [], seconds)[0])


class Zygote:
    """The process that forks operators; a context manager."""

    def __enter__(self) -> Self:
        self._ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.faults.zygote", str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self._lines = self._ours.makefile("r")
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._ours.close()
        self._process.wait(10)

    def fork(self, folder: Path, settings: dict[str, Any]) -> Forked:
        """A new operator with these settings of its file; its files go into `folder`.

        It is not awaited: see `Forked.begun`. One caller at a time.
        """
        scratch = folder / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        config, log = folder / "operator.yaml", folder / "operator.log"
        config.write_text(yaml.safe_dump({"ops": {"port": 0}, **settings}))
        log.touch()
        wish = {"config": str(config), "log": str(log), "scratch": str(scratch)}
        self._ours.sendall(json.dumps(wish).encode() + b"\n")
        pid = int(self._lines.readline())
        return Forked(pid, os.pidfd_open(pid), log, scratch)


def serve(wishes: socket.socket) -> None:
    """Fork an operator for each line, and answer with its pid, until the other side hangs up."""
    # Nobody waits for the children here: the kernel may forget them at once. But the pid is not
    # free for others before the answer was read and opened, since pids are given in turn.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in wishes.makefile("r"):
        pid = os.fork()
        if not pid:
            _become(json.loads(line), wishes)
        wishes.sendall(f"{pid}\n".encode())


def _become(wish: dict[str, str], wishes: socket.socket) -> None:
    """The operator, in the child; never returns."""
    code = 1
    try:
        wishes.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        output = os.open(wish["log"], os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # The pause before a retry is drawn: here it is the same in every run.
        random.random = lambda: CHANCE
        os.environ["TMPDIR"] = tempfile.tempdir = wish["scratch"]
        run.main(["--config", wish["config"]], standalone_mode=False)
        code = 0
    except BaseException:  # noqa: BLE001  # told here: nothing outlives os._exit
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    import gc

    import imagewright.main
    from imagewright.cli.run import run

    assert len(list(Path("/proc/self/task").iterdir())) == 1, imagewright.main
    gc.freeze()  # What is shared stays shared: the collector of a child does not write to it.
    serve(socket.socket(fileno=int(sys.argv[1])))
