"""Containers of a buildkitd that is gone: runc keeps them, and what runs in them, for good."""

import json
import subprocess
from pathlib import Path

from devstack.debian import program


def remove_containers(folder: Path) -> None:
    """End and remove every runc container whose bundle lies below the folder, and no other."""
    runc = program("runc")
    if runc is None:
        return
    listed = subprocess.run(
        [str(runc), "list", "--format=json"], capture_output=True, text=True, check=False
    )
    for container in json.loads(listed.stdout or "null") or []:
        if Path(container["bundle"]).is_relative_to(folder):
            command = [str(runc), "delete", "--force", container["id"]]
            subprocess.run(command, capture_output=True, check=False)
