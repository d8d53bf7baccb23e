"""Fixtures of real engines, and what tests say to them.

A test runs on each kind that `kind` names; `@pytest.mark.parametrize("kind", [...])` chooses.
"""

import io
import secrets
import tarfile
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import pytest

import devstack
from imagewright.clients.engine.build import Build, Result
from imagewright.clients.engine.connection import Answer, Request, Upload
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import Refused

ALL = ("old", "new", "containerd")
GRAPH = ("old", "new")
"""Those with a graph driver."""
LATEST = ("new", "containerd")
Files = Mapping[str, str | bytes]


@pytest.fixture(params=ALL)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of engine."""
    return str(request.param)


@pytest.fixture
async def engine(stack: devstack.Stack, kind: str) -> AsyncIterator[Engine]:
    """A client of an engine of that kind."""
    made = Engine(stack.engine(kind).address)
    yield made
    await made.close()


@pytest.fixture
def name() -> str:
    """A repository that no other test has."""
    return f"test/{secrets.token_hex(6)}"


@pytest.fixture
def base(stack: devstack.Stack) -> str:
    """An image with a shell, in a registry that every engine reaches."""
    return stack.base_image


@dataclass(slots=True)
class Heard:
    """What a build printed."""

    result: Result = field(default_factory=lambda: Result(""))
    pieces: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """Line by line."""
        return "".join(self.pieces).splitlines()


def tar(files: Files) -> bytes:
    """An archive of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


async def pieces(data: bytes, size: int = 32768) -> AsyncIterator[bytes]:
    """The bytes, piece by piece."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def built(
    engine: Engine, build: Build, dockerfile: str, files: Files | None = None
) -> Heard:
    """Build it, and hear what it prints."""
    heard = Heard()
    context = pieces(tar({build.dockerfile: dockerfile, **(files or {})}))
    heard.result = await engine.run(build, context, heard.pieces.append)
    return heard


async def posted(
    engine: Engine,
    path: str,
    query: Iterable[tuple[str, str]] = (),
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """An answer to a request that the client would not send, whatever its status."""
    version = await engine.ping()
    request = Request(
        "POST",
        version.prefix + path,
        list(query),
        headers or {"Content-Type": "application/x-tar"},
        Upload(pieces(body)) if body is not None else None,
    )
    return await engine.connection.answer(request)


async def got(engine: Engine, path: str, query: Iterable[tuple[str, str]] = ()) -> Answer:
    """The answer to a GET."""
    version = await engine.ping()
    return await engine.connection.answer(Request("GET", version.prefix + path, list(query)))


async def is_there(engine: Engine, image: str) -> bool:
    """Whether the engine has such an image."""
    try:
        await engine.inspect(image)
    except Refused as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return False
        raise
    return True


async def containers(engine: Engine) -> set[str]:
    """The ids of all containers, also of those that have ended."""
    answer = await got(engine, "/containers/json", [("all", "1")])
    return {container["Id"] for container in answer.json()}


def unique() -> str:
    """A line of a Dockerfile that no cache has."""
    return f"ENV unique={secrets.token_hex(8)}\n"
