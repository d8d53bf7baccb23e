"""The base image of every build here: busybox on nothing, since no image can be pulled."""

import shutil
import subprocess
from pathlib import Path

from devstack.debian import program
from devstack.identity import run

DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
CMD ["sh"]
"""


def push_base_image(tools: dict[str, Path], address: str, name: str, folder: Path) -> None:
    """Build and push the image, where the registry has none by that name yet."""
    known = subprocess.run(
        [str(tools["crane"]), "digest", "--insecure", name], capture_output=True, check=False
    )
    if known.returncode == 0:
        return
    busybox = program("busybox")
    if busybox is None:
        raise RuntimeError("busybox is missing: install Debian's busybox-static.")
    context = folder / "base-image"
    context.mkdir(exist_ok=True)
    shutil.copy(busybox, context / "busybox")
    (context / "Dockerfile").write_text(DOCKERFILE)
    run(
        [
            str(tools["buildctl"]),
            f"--addr={address}",
            "build",
            "--frontend=dockerfile.v0",
            f"--local=context={context}",
            f"--local=dockerfile={context}",
            f"--output=type=image,name={name},push=true",
        ]
    )
