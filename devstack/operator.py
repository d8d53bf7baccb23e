"""The operator as a process, under the identity that the chart gives it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

START_SECONDS = 60
"""It takes one; on a machine that is busy with other tests it was seen to take twenty."""


@dataclass(frozen=True, slots=True)
class OperatorProcess:
    """A running operator: its pid, where it serves /metrics, and its log."""

    process: "subprocess.Popen[bytes]"
    ops: str
    log: Path

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def stop(self, seconds: float = 15) -> int:
        """SIGTERM, and SIGKILL where that does not end it in time; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                return self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def kill(self) -> None:
        """SIGKILL: what a node does that runs out of memory."""
        self.process.kill()
        self.process.wait()

    def events(self) -> list[dict[str, Any]]:
        """The log's lines; the one that is being written is not read yet."""
        whole = self.log.read_text().split("\n")[:-1]
        return [json.loads(line) for line in whole if line[:1] == "{"]

    def readiness(self) -> str:
        """What /readyz says: ok, or why it is not ready."""
        try:
            with urllib.request.urlopen(f"{self.ops}/readyz", timeout=5) as answer:  # noqa: S310
                return str(answer.read().decode().strip())
        except urllib.error.HTTPError as error:
            return str(error.read().decode().strip())

    def metrics(self) -> dict[str, float]:
        """What it counts: the value of each series, named as in the exposition format."""
        with urllib.request.urlopen(f"{self.ops}/metrics", timeout=5) as answer:  # noqa: S310
            lines = answer.read().decode().splitlines()
        told = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {series: float(value) for series, _, value in told}


def start_operator(directory: Path, kubeconfig: Path | str, **settings: Any) -> OperatorProcess:
    """Start the operator and wait until it has begun; files go into `directory`.

    `settings` are those of the operator's own file. Raises RuntimeError with the log's end where
    it does not begin.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "operator.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "kubeconfig": str(kubeconfig),
                "ops": {"port": 0},
                "sources": {"folder": str(directory / "sources"), "allowLoopback": True},
                **settings,
            }
        )
    )
    log = directory / "operator.log"
    command = [sys.executable, "-m", "imagewright", "run", "--config", str(config)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stderr=output, stdout=output, env=environment())
    started = OperatorProcess(process, "", log)
    port = _await_port(started)
    return OperatorProcess(process, f"http://127.0.0.1:{port}", log)


def environment() -> dict[str, str]:
    """This process's own, in which Python may keep what it has compiled, as in the image.

    Otherwise each start compiles every module for more than a second.
    """
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def _await_port(started: OperatorProcess) -> int:
    """The ops port, from the line that says the watch is up."""
    deadline = time.monotonic() + START_SECONDS
    port = 0
    while time.monotonic() < deadline and started.process.poll() is None:
        for event in started.events():
            port = int(event.get("ops_port", port))
            if port and event.get("event") == "Watching":
                return port
        time.sleep(0.02)
    started.process.kill()
    started.process.wait()
    raise RuntimeError(f"The operator did not begin: {started.log.read_text()[-2000:]}")
