"""The few Debian packages that the stack needs: installed where we may, named where not."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from devstack.binaries import MissingProgramError, Say

PACKAGES = {
    "runc": "runc",
    "git": "git",
    "busybox": "busybox-static",
    "ssh-add": "openssh-client",
}
"""Program to the package that brings it."""
PLACES = os.pathsep.join(["/usr/sbin", "/sbin", "/bin", "/usr/bin"])


def program(name: str) -> Path | None:
    """The program's place, also outside a user's PATH."""
    found = shutil.which(name) or shutil.which(name, path=PLACES)
    return Path(found) if found else None


def install_missing(say: Say) -> None:
    """Install what is missing. Raises MissingProgramError where we may not, or it fails."""
    missing = [package for name, package in PACKAGES.items() if program(name) is None]
    if missing:
        install(missing, say)


def install(packages: Sequence[str], say: Say) -> None:
    """Install those of the packages that are not there. Raises MissingProgramError."""
    missing = [package for package in packages if not _installed(package)]
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


def _installed(package: str) -> bool:
    asked = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    except OSError:
        return False
    return said == "installed"
