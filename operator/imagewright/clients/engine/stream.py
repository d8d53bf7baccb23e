"""The stream of JSON objects in which an engine tells how a build or a push goes.

Objects come in any pieces, with any space between them (engines write CRLF), and none of them says
that this was all: a stream that stops between two objects may be a whole one.
"""

import base64
import binascii
import json
import re
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from imagewright.clients.engine.errors import EngineError, StreamError, Unreachable

LARGEST = 32 << 20
"""Bytes of one object. BuildKit's own limit is 16 MiB, before base64."""
TRACE = "moby.buildkit.trace"
IMAGE_ID = "moby.image.id"

_SPACE = re.compile(r"\s*")
_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of what the classic builder prints; lines come in pieces, too."""

    text: str


@dataclass(frozen=True, slots=True)
class Status:
    """How far something is, such as one layer (`id`) of a pull. Sizes in bytes, 0 if unknown."""

    text: str
    id: str = ""
    current: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Aux:
    """A fact for programs. The classic builder's own have no `id`."""

    id: str
    value: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trace:
    """A moby.buildkit.v1.StatusResponse in protobuf: all that BuildKit tells of its progress."""

    data: bytes


Message = Output | Status | Aux | Trace


async def messages(chunks: AsyncIterable[bytes]) -> AsyncGenerator[Message]:
    """What a stream says, in order.

    Raises StreamError where the engine says that it failed, Unreachable where the stream stops
    inside of an object, and EngineError where it is no such stream.
    """
    async with aclosing(objects(chunks)) as stream:
        async for found in stream:
            for message in read(found):
                yield message


async def objects(chunks: AsyncIterable[bytes]) -> AsyncGenerator[dict[str, Any]]:
    """The JSON objects of a stream. Raises Unreachable and EngineError as `messages` does."""
    rest: list[bytes] = []
    size = 0
    async for chunk in chunks:
        # A line feed ends an object, since JSON has none inside of a text.
        head, *lines = chunk.split(b"\n")
        rest.append(head)
        size += len(head)
        if size > LARGEST:
            raise EngineError(f"The engine sent an object of more than {LARGEST >> 20} MiB.")
        for line in lines:
            for found in parse(b"".join(rest)):
                yield found
            rest, size = [line], len(line)
    try:
        last = list(parse(b"".join(rest)))
    except EngineError as error:
        raise Unreachable("the engine stopped in the middle of a message") from error
    for found in last:
        yield found


def parse(line: bytes) -> Iterator[dict[str, Any]]:
    """The objects in a line. Raises EngineError where there is something else."""
    text = line.decode(errors="replace")
    at = _skip(text, 0)
    while at < len(text):
        try:
            found, at = _decode(text, at)
        except ValueError as error:
            raise _strange(text) from error
        if not isinstance(found, dict):
            raise _strange(text)
        yield found
        at = _skip(text, at)


def read(found: Mapping[str, Any]) -> Iterator[Message]:
    """What one object says; an empty one says nothing. Raises StreamError for an error."""
    if "error" in found or "errorDetail" in found:
        raise failure(found)
    if "aux" in found:
        yield _aux(str(found.get("id", "")), found["aux"])
    if isinstance(text := found.get("stream"), str) and text:
        yield Output(_clean(text))
    if isinstance(text := found.get("status"), str):
        yield _status(found, text)


def failure(found: Mapping[str, Any]) -> StreamError:
    """The error that an object holds."""
    detail = found.get("errorDetail")
    detail = detail if isinstance(detail, dict) else {}
    text = detail.get("message") or found.get("error") or "The engine failed and does not say why."
    code = detail.get("code")
    return StreamError(_clean(str(text)), code if isinstance(code, int) and code else None)


def _aux(name: str, value: object) -> Message:
    if name == TRACE and isinstance(value, str):
        try:
            return Trace(base64.b64decode(value, validate=True))
        except binascii.Error as error:
            raise EngineError("The engine sent a trace that is no base64.") from error
    return Aux(name, value if isinstance(value, dict) else {"value": value})


def _status(found: Mapping[str, Any], text: str) -> Status:
    detail = found.get("progressDetail")
    detail = detail if isinstance(detail, dict) else {}
    sizes = (detail.get(key) for key in ("current", "total"))
    current, total = (size if isinstance(size, int) else 0 for size in sizes)
    return Status(_clean(text), str(found.get("id", "")), current, total)


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _clean(text: str) -> str:
    """The text without half characters: JSON can spell them, and nobody can write them."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _strange(text: str) -> EngineError:
    return EngineError(f"The engine sent something that is no JSON object: {text[:200]!r}.")
