"""An image's files, really unpacked, with everything that tells one from another."""

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import devstack
from devstack.components import Place, buildkitd
from devstack.registries import Registries
from devstack.server import await_ready, free_port, start

Tree = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Unpacker:
    """Unpacks images as containerd's code does, in a BuildKit that has built none of them.

    The one that built an image still has its files as the steps left them, and does not look at
    the layers. crane's export is no measure either: it takes a lower layer's link for one to an
    upper layer's file.
    """

    program: Path
    address: str

    def __call__(self, image: str, folder: Path) -> Tree:
        """The image's files, put into the folder. Blocks."""
        archive, context = folder.with_suffix(".tar"), folder.with_suffix(".context")
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM {image}\n")
        command = [str(self.program), "--addr", self.address, "build"]
        command += ["--frontend=dockerfile.v0", f"--local=context={context}"]
        command += [f"--local=dockerfile={context}", f"--output=type=tar,dest={archive}"]
        subprocess.run(command, check=True, capture_output=True)
        return _walked(archive, folder)


@pytest.fixture(scope="module")
def unpack(stack: devstack.Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unpacker]:
    """Unpacks images of the stack's open registry."""
    folder = tmp_path_factory.mktemp("unpacker")
    address = f"tcp://127.0.0.1:{free_port()}"
    place = Place(stack.binaries["buildkitd"], folder)
    command = buildkitd(place, address, Registries(folder))
    server = await_ready(command, start(command, folder))
    yield Unpacker(stack.binaries["buildctl"], address)
    server.stop()


def _walked(archive: Path, folder: Path) -> Tree:
    folder.mkdir()
    options = ["--xattrs", "--xattrs-include=*", "--same-owner", "--numeric-owner"]
    subprocess.run(["tar", *options, "-xpf", str(archive), "-C", str(folder)], check=True)
    found: Tree = {}
    names: dict[int, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        seen = path.lstat()
        where = str(path.relative_to(folder))
        names.setdefault(seen.st_ino, []).append(where)
        regular = stat.S_ISREG(seen.st_mode)
        found[where] = {
            "mode": stat.filemode(seen.st_mode),
            "owner": (seen.st_uid, seen.st_gid),
            "time": seen.st_mtime_ns,
            "content": hashlib.sha256(path.read_bytes()).hexdigest() if regular else "",
            "target": str(path.readlink()) if path.is_symlink() else "",
            "device": seen.st_rdev,
            "xattrs": {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            },
            "names": names[seen.st_ino],
        }
    return found
