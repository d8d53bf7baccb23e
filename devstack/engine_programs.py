"""The programs of Docker Engines: the newest built from Go modules, an old one from Debian.

Debian's docker.io is unpacked into the cache and not installed: an installed one would start by
itself.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from devstack.binaries import CACHE, MissingProgramError, Program, Say, build, find, locked
from devstack.debian import install, program

NEW: tuple[Program, ...] = (
    Program(
        "dockerd",
        "docker",
        "github.com/moby/moby/v2/cmd/dockerd",
        "2 minutes",
        tags="exclude_graphdriver_btrfs",
        cgo=True,
    ),
    Program(
        "containerd",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd",
        "a minute",
        tags="no_btrfs",
    ),
    Program(
        "containerd-shim-runc-v2",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        "some seconds",
        tags="no_btrfs",
    ),
    # Debian's runc 1.1 is too old for this engine, which asks for a time namespace.
    Program(
        "runc", "runc", "github.com/opencontainers/runc", "some seconds", tags="seccomp", cgo=True
    ),
)
BUILD_PACKAGES = ("gcc", "libc6-dev", "pkg-config", "libseccomp-dev")
OLD = CACHE / "debian-engine"
OLD_PACKAGES = ("docker.io", "containerd", "runc")
OLD_LIBRARIES = ("libdevmapper1.02.1", "libseccomp2")


def new_programs(say: Say) -> list[Path]:
    """The folders of the newest engine's programs, built where they are missing."""
    _install_network(say)
    missing = [one for one in NEW if find(one) is None]
    if any(one.cgo for one in missing):
        install(BUILD_PACKAGES, say)
    for one in missing:
        say(f"building {one.name} (first time: {one.minutes}) …")
        build(one)
    found = [path for one in NEW if (path := find(one))]
    return list(dict.fromkeys(path.parent for path in found))


def old_programs(say: Say) -> list[Path]:
    """The folders of Debian's engine, unpacked into the cache. Raises MissingProgramError."""
    _install_network(say)
    OLD.mkdir(parents=True, exist_ok=True)
    with locked(OLD / "lock"):
        if not (OLD / "whole").exists():
            say("unpacking Debian's docker.io …")
            install(OLD_LIBRARIES, say)
            _unpack(OLD_PACKAGES, OLD)
            (OLD / "whole").touch()
    return [OLD / "usr/sbin", OLD / "usr/bin"]


def old_dockerd() -> Path | None:
    """Debian's dockerd, if it was unpacked."""
    return OLD / "usr/sbin/dockerd" if (OLD / "whole").exists() else None


def _install_network(say: Say) -> None:
    if program("ip") is None:
        install(("iproute2",), say)


def _unpack(packages: Sequence[str], root: Path) -> None:
    fetched = root / "packages"
    fetched.mkdir(exist_ok=True)
    # As root apt would fetch as another user, who may not write here.
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root"]
    # A fresh machine has no lists of packages yet; one without a network may have them.
    subprocess.run([*command, "update"], capture_output=True, check=False)
    ended = subprocess.run(
        [*command, "download", *packages], cwd=fetched, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise MissingProgramError(
            f"Debian's docker.io cannot be fetched by apt-get: {ended.stderr.strip()[-1000:]}"
        )
    for package in fetched.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
