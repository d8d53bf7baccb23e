"""Containers of a daemon that is gone: runc keeps them, and what runs in them, for good."""

import json
import re
import subprocess
from pathlib import Path

from devstack.debian import program

BUNDLES = "x/*/containerd/daemon/io.containerd.runtime.v2.task/moby/*"
"""Where the containerd of an engine keeps what it knows of a container."""
SHIM = re.compile(r"unix://(/run/containerd/s/[0-9a-f]{64})")


def shim_sockets(folder: Path) -> list[Path]:
    """The sockets of containerd's shims: they lie outside the folder, and outlive a kill."""
    found = []
    for bundle in folder.glob(BUNDLES):
        # Containerd 1 writes the one, containerd 2 the other or both.
        for path in (bundle / "address", bundle / "bootstrap.json"):
            named = SHIM.search(path.read_text()) if path.is_file() else None
            if named:
                found.append(Path(named[1]))
    return list(dict.fromkeys(found))


def remove_containers(folder: Path) -> None:
    """End and remove every runc container whose bundle lies below the folder, and no other."""
    runc = program("runc")
    if runc is None:
        return
    engines = [f"--root={root}" for root in folder.glob("x/*/runtime-runc/moby")]
    for root in ([], *([one] for one in engines)):
        listed = subprocess.run(
            [str(runc), *root, "list", "--format=json"],
            capture_output=True,
            text=True,
            check=False,
        )
        for container in json.loads(listed.stdout or "null") or []:
            if Path(container["bundle"]).is_relative_to(folder):
                command = [str(runc), *root, "delete", "--force", container["id"]]
                subprocess.run(command, capture_output=True, check=False)
