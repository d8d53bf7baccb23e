"""The session against a real daemon: what it builds must be what buildctl's session gives it."""

import asyncio
import json
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest

from devstack import Stack
from imagewright.clients.buildkit.auth import Auth
from imagewright.clients.buildkit.control import Control, Export, Solve
from imagewright.clients.buildkit.errors import BuildKitError, SolveError, Unreachable
from imagewright.clients.buildkit.filesync import FileSync
from imagewright.clients.buildkit.session import Session, SessionLost
from imagewright.clients.buildkit.status import Vertex
from imagewright.clients.buildkit.trees import Directory, Files, Tree

EVERYTHING = "FROM scratch\nCOPY . /all/\nCOPY hard-b /single\n"
SOME = (
    "FROM scratch\nCOPY to-folder/inner.txt glob?/*.txt /some/\nCOPY chain /chain\nCOPY ü* /u/\n"
)


@pytest.fixture
async def control(buildkit: str) -> AsyncIterator[Control]:
    made = Control(buildkit)
    yield made
    await made.close()


@dataclass(frozen=True, slots=True)
class Built:
    """What came of a build."""

    digest: str
    steps: dict[str, Vertex] = field(default_factory=dict)

    @property
    def work(self) -> list[Vertex]:
        """The steps of the Dockerfile."""
        return [
            step for name, step in self.steps.items() if name.startswith("[1/") or "COPY" in name
        ]


async def build(control: Control, trees: dict[str, Tree], **attrs: str) -> Built:
    """A build whose local sources are these."""
    sync = FileSync(trees)
    steps: dict[str, Vertex] = {}

    async def follow(ref: str) -> None:
        async for event in control.follow(ref):
            steps.update({vertex.name: vertex for vertex in event.vertexes})

    handlers = {**sync.handlers(), **Auth().handlers()}
    async with Session(control.open_session, handlers, sync.shared_key) as session:
        ref = secrets.token_hex(12)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow(ref))
            export = Export("image", {"name": f"test/{ref}", "push": "false"})
            request = Solve(ref=ref, session=session.id, attrs=attrs, exports=[export])
            answer = await solve(control, request)
    return Built(answer["containerimage.digest"], steps)


async def solve(control: Control, request: Solve) -> dict[str, str]:
    async with asyncio.timeout(60):
        return await control.solve(request)


def both(tree: Tree) -> dict[str, Tree]:
    return {"context": tree, "dockerfile": tree}


def buildctl(stack: Stack, context: Path, metadata: Path) -> str:
    """The same build by BuildKit's own client; the digest of the image."""
    command = [str(stack.binaries["buildctl"]), "--addr", stack.buildkit, "build"]
    command += ["--frontend", "dockerfile.v0"]
    command += ["--local", f"context={context}", "--local", f"dockerfile={context}"]
    command += ["--output", "type=image,name=test/buildctl,push=false"]
    command += ["--metadata-file", str(metadata)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    digest = json.loads(metadata.read_text())["containerimage.digest"]
    return str(digest)


def plant(root: Path) -> None:
    """A context of all that has ever gone wrong in one."""
    for folder in ("a/b", "folder", "glob1", "glob2", "ignored/kept", "sticky", "empty", "ünï"):
        (root / folder).mkdir(parents=True)
    for file in ("a/b/c", "a-b", "a.txt", "folder/inner.txt", "glob1/x.txt", "glob2/y.txt"):
        (root / file).write_text(file)
    for file in (
        "ignored/no",
        "ignored/kept/yes",
        "a/skip.log",
        "a/b/keep.log",
        "Z",
        "ünï/ö 日本",
    ):
        (root / file).write_text(file)
    (root / "ignored.bin").write_bytes(b"ignored" * 1000)
    (root / "large").write_bytes(os.urandom(3_000_000))
    (root / "zero").touch()
    for name in ("hard-a", "hard-b", "a/hard-c"):
        os.link(root / "ignored.bin", root / name)
    os.link(root / "large", root / "large-again")
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(root / "sock"))
    (root / "setuid").write_text("s")
    (root / "setuid").chmod(0o6711)
    (root / "sticky").chmod(0o1777)
    (root / "Z").chmod(0)
    os.utime(root / "a.txt", ns=(0, 1_234_567_890_123_456_789))
    os.utime(root / "a-b", ns=(0, -86_400_000_000_000))
    (root / ".dockerignore").write_text(IGNORED)


LINKS = {
    "to-folder": "folder",
    "dangling": "nowhere/at/all",
    "chain": "a/link",
    "a/link": "../to-folder/inner.txt",
    "outside": "/etc/passwd",
    "up": "../../..",
}
IGNORED = """# What is left out
ignored*
!ignored/kept/yes
**/*.log
!a/b/keep.log
/sock*/
"""


@pytest.mark.parametrize(
    "dockerfile",
    [pytest.param(EVERYTHING, id="the whole context"), pytest.param(SOME, id="paths and links")],
)
async def test_the_image_is_that_of_buildctl_and_all_of_it_is_cached(
    control: Control, stack: Stack, tmp_path: Path, dockerfile: str
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    plant(context)
    (context / "Dockerfile").write_text(dockerfile)
    expected = await asyncio.to_thread(buildctl, stack, context, tmp_path / "metadata")
    found = await build(control, both(Directory(context)))

    assert found.digest == expected
    assert found.work
    assert [step.name for step in found.work if not step.cached] == []


async def test_thousands_of_files_arrive_in_good_time(
    control: Control, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in range(50):
        (tmp_path / f"d{folder}").mkdir()
        for file in range(100):
            (tmp_path / f"d{folder}/f{file}").write_bytes(os.urandom(1024))
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    began = time.monotonic()
    first = await build(control, both(Directory(tmp_path)))
    took = time.monotonic() - began
    again = await build(control, both(Directory(tmp_path)))
    load = first.steps["[internal] load build context"]
    with capsys.disabled():
        loaded = (load.completed or 0) - (load.started or 0)
        print(f"\n5,000 files: {loaded:.2f} s to load, {took:.2f} s in all")  # noqa: T201

    assert first.digest == again.digest
    assert took < 30


async def test_a_file_in_memory_that_changes_is_sent_again(control: Control) -> None:
    digests = []
    for content in (b"one", b"two", b"one"):
        files = Files({"Dockerfile": b"FROM scratch\nCOPY x /\n", "x": content})
        digests.append((await build(control, both(files))).digest)

    assert digests[0] == digests[2] != digests[1]


async def test_a_dockerfile_may_come_from_memory_and_the_rest_from_disk(
    control: Control, tmp_path: Path
) -> None:
    (tmp_path / "x").write_text("x")
    trees: dict[str, Tree] = {
        "context": Directory(tmp_path),
        "dockerfile": Files({"F": b"FROM scratch\nCOPY x /\n"}),
    }

    assert (await build(control, trees, filename="F")).digest.startswith("sha256:")


async def test_many_sessions_live_side_by_side(control: Control) -> None:
    async def one(number: int) -> str:
        files = {"Dockerfile": b"FROM scratch\nCOPY x /\n", "x": b"%d" % number}
        return (await build(control, both(Files(files)))).digest

    digests = await asyncio.gather(*(one(number) for number in range(16)))

    assert len(set(digests)) == 16


@pytest.mark.parametrize(
    ("trees", "text"),
    [
        pytest.param({}, "no directory", id="a source that is not there"),
        pytest.param(
            {"dockerfile": Files({"Dockerfile": b"FROM scratch\nCOPY no /\n"})},
            "no directory 'context'",
            id="half of the sources",
        ),
    ],
)
async def test_what_the_session_refuses_reaches_the_user(
    control: Control, trees: dict[str, Tree], text: str
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await build(control, trees)

    assert any(text in str(error) for error in caught.value.exceptions)


async def test_a_name_that_is_not_utf_8_reaches_the_user(control: Control, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (tmp_path / os.fsdecode(b"caf\xe9")).touch()
    with pytest.raises(ExceptionGroup) as caught:
        await build(control, both(Directory(tmp_path)))

    assert caught.group_contains(SolveError, match="is not UTF-8; BuildKit's protocol cannot")


async def test_a_daemon_that_is_not_there_ends_the_session_at_once(tmp_path: Path) -> None:
    control = Control(f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(Unreachable):
        await wait_in_a_session(control)
    await control.close()


async def test_a_channel_that_closes_ends_the_session(buildkit: str) -> None:
    control = Control(buildkit)
    await control.info()
    waiting = asyncio.create_task(wait_in_a_session(control))
    await control.info()
    await control.close()
    with pytest.raises(SessionLost):
        await waiting


async def wait_in_a_session(control: Control) -> None:
    async with Session(control.open_session, {}), asyncio.timeout(20):
        await asyncio.Event().wait()


class Watched(Directory):
    """A directory that tells when the daemon has begun to take its largest file."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.taken = threading.Event()

    def open(self, path: str) -> BinaryIO:
        if path == "large":
            self.taken.set()
        return super().open(path)


async def test_a_large_transfer_can_be_cancelled(control: Control, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(4 << 30)
    tree = Watched(tmp_path)
    building = asyncio.create_task(build(control, both(tree)))
    assert await asyncio.to_thread(tree.taken.wait, 20)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building

    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("session")]


def test_every_failure_of_a_session_is_one_of_the_clients() -> None:
    assert issubclass(SessionLost, BuildKitError)
