"""What the registry itself says of an image, asked with crane."""

import io
import subprocess
import tarfile

from devstack.stack import Stack


def crane(stack: Stack, *arguments: str) -> str:
    """What crane prints. Raises CalledProcessError where the registry says no."""
    return _crane(stack, *arguments).decode().strip()


def digest_of(stack: Stack, image: str) -> str:
    """The digest that the name stands for."""
    return crane(stack, "digest", image)


def files_of(stack: Stack, image: str) -> dict[str, bytes]:
    """The regular files of an image by path."""
    with tarfile.open(fileobj=io.BytesIO(_crane(stack, "export", image, "-"))) as archive:
        found = {one.name: archive.extractfile(one) for one in archive if one.isfile()}
        return {name: file.read() for name, file in found.items() if file is not None}


def _crane(stack: Stack, *arguments: str) -> bytes:
    command = [str(stack.binaries["crane"]), *arguments, "--insecure"]
    return subprocess.run(command, check=True, capture_output=True).stdout
