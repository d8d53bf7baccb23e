"""A git server on loopback, with git's own daemon."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack.server import Command, await_ready, free_port, listening, start


@contextmanager
def serve_git(base: Path) -> Iterator[str]:
    """Serve every repository below `base`; yields the URL that their paths are added to."""
    port = free_port()
    core = subprocess.run(
        ["git", "--exec-path"], check=True, capture_output=True, text=True
    ).stdout.strip()
    command = Command(
        "git-daemon",
        [
            f"{core}/git-daemon",
            f"--base-path={base}",
            "--export-all",
            "--reuseaddr",
            "--listen=127.0.0.1",
            f"--port={port}",
            str(base),
        ],
        lambda: listening(port),
    )
    server = await_ready(command, start(command, base))
    try:
        yield f"git://127.0.0.1:{port}"
    finally:
        server.stop()
