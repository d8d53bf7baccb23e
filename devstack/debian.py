"""The few Debian packages that the stack needs: installed where we may, named where not."""

import os
import shutil
import subprocess
from pathlib import Path

from devstack.binaries import MissingProgramError, Say

PACKAGES = {"runc": "runc", "git": "git", "busybox": "busybox-static"}
"""Program to the package that brings it."""
PLACES = os.pathsep.join(["/usr/sbin", "/sbin", "/bin", "/usr/bin"])


def program(name: str) -> Path | None:
    """The program's place, also outside a user's PATH."""
    found = shutil.which(name) or shutil.which(name, path=PLACES)
    return Path(found) if found else None


def install_missing(say: Say) -> None:
    """Install what is missing. Raises MissingProgramError where we may not, or it fails."""
    missing = [package for name, package in PACKAGES.items() if program(name) is None]
    if not missing:
        return
    command = f"apt-get install -y {' '.join(missing)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise MissingProgramError(f"These packages are missing: run `{command}` as root.")
    say(f"installing Debian packages: {', '.join(missing)}")
    quiet = ["apt-get", "-qq", "-y"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--no-install-recommends", *missing]):
        ended = subprocess.run(
            [*quiet, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        if ended.returncode and arguments[0] == "install":
            raise MissingProgramError(f"`{command}` failed: {ended.stderr.strip()[-1000:]}")
