"""A git server on loopback, with git's own daemon."""

import subprocess
from collections.abc import Iterator, Mapping
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


def make_repository(folder: Path, files: Mapping[str, str], tag: str = "") -> str:
    """A new repository with one commit on main, and an annotated tag; returns the commit's id."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=devstack", "-c", "user.email=devstack@example.com"]
        command = ["git", "-C", str(folder), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet", "--initial-branch=main")
    git("add", ".")
    git("commit", "--quiet", "--message=first")
    if tag:
        git("tag", "--annotate", tag, f"--message={tag}")
    return git("rev-parse", "HEAD")
