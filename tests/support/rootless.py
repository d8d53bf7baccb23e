"""A buildkitd without privilege and without a sandbox for the processes of its steps.

It lives in a user namespace that has every user of ours, so none of the machine's files that map
users to users has to be changed.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import devstack
from devstack.components import Place, buildkitd
from devstack.containers import remove_containers
from devstack.server import await_ready, start
from devstack.stack import unmount

EVERYBODY = "0 0 65536"
ARGUMENTS = ["--rootless", "--oci-worker-no-process-sandbox", "--oci-worker-snapshotter=native"]
ENTER = 'read -r _ < "$1"; shift; exec "$@"'


@contextmanager
def rootless_worker(stack: devstack.Stack) -> Iterator[str]:
    """The address of one; gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="rootless-", dir=stack.folder))
    address = f"unix://{folder / 'buildkitd.sock'}"
    place = Place(stack.binaries["buildkitd"], folder)
    inside = buildkitd(place, address, stack.registries, ARGUMENTS)
    gate = folder / "gate"
    os.mkfifo(gate)
    enter = ["unshare", "--user", "--mount", "sh", "-c", ENTER, "sh", str(gate)]
    command = replace(
        inside,
        arguments=[*enter, *inside.arguments],
        environment={**inside.environment, "XDG_RUNTIME_DIR": str(folder)},
    )
    server = start(command, folder)
    try:
        # The gate is opened for writing once the shell reads it, in the new namespace.
        with gate.open("w") as opened:
            for kind in ("uid_map", "gid_map"):
                Path(f"/proc/{server.pid}/{kind}").write_text(EVERYBODY)
            opened.write("go\n")
        await_ready(command, server)
        yield address
    finally:
        server.kill()
        remove_containers(folder)
        unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)
