"""A crew: more buildkitds beside a stack's own, for pools of several workers."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from devstack.components import Place, buildkitd
from devstack.containers import remove_containers
from devstack.server import Command, Server, await_ready, start
from devstack.stack import Stack, unmount


@dataclass(slots=True)
class Member:
    """One buildkitd of a crew; its cache outlives its process."""

    address: str
    folder: Path
    command: Command
    server: Server

    def kill(self) -> None:
        """SIGKILL, for it and for the steps that it runs, as when its node is lost."""
        self.server.kill()
        remove_containers(self.folder)
        unmount(self.folder)

    def restart(self) -> None:
        """A new process at the old address with the old cache. Raises ServerError."""
        self.server = await_ready(self.command, start(self.command, self.folder.parent))


@contextmanager
def crew(stack: Stack, count: int, more: Sequence[str] = ()) -> Iterator[list[Member]]:
    """So many running buildkitds with empty caches; all gone at the end. Raises ServerError.

    `more` are arguments that each is started with.
    """
    members: list[Member] = []
    try:
        members.extend(_member(stack, more) for _ in range(count))
        yield members
    finally:
        for member in members:
            member.server.stop()
            remove_containers(member.folder)
            unmount(member.folder)
            shutil.rmtree(member.folder, ignore_errors=True)


def _member(stack: Stack, more: Sequence[str]) -> Member:
    folder = Path(tempfile.mkdtemp(prefix="crew-", dir=stack.folder))
    address = f"unix://{folder / 'buildkitd.sock'}"
    place = Place(stack.binaries["buildkitd"], folder)
    command = replace(buildkitd(place, address, stack.registries, more), name=folder.name)
    return Member(address, folder, command, await_ready(command, start(command, stack.folder)))
