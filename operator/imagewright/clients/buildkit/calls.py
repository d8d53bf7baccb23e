"""gRPC calls as those see them who answer: a stream of messages, and a status at the end."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import IntEnum
from typing import Protocol
from urllib.parse import quote


class Code(IntEnum):
    """The gRPC status codes that we answer with."""

    OK = 0
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13


class CallFailed(Exception):
    """The answer to a call is this status. The text reaches the user, through the daemon."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Stream(Protocol):
    """One call of the peer to us."""

    @property
    def metadata(self) -> Mapping[str, Sequence[str]]:
        """The request's headers by lower-case name, every value of each."""
        ...

    async def read(self) -> bytes | None:
        """The next message, or None after the last. Raises CallFailed for what is none."""
        ...

    async def write(self, *messages: bytes) -> None:
        """Send messages, and wait while the peer is not ready for them.

        Several tasks may write at once: no message is torn, and those of one write stay together.
        """
        ...


Handler = Callable[[Stream], Awaitable[None]]
"""Answers one call. It returns for OK, and raises CallFailed for anything else."""


def unary(answer: Callable[[bytes], Awaitable[bytes]]) -> Handler:
    """A handler for calls of one message and one answer."""

    async def handler(stream: Stream) -> None:
        message = await stream.read()
        if message is None:
            raise CallFailed(Code.INTERNAL, "The call came without its message.")
        await stream.write(await answer(message))

    return handler


def failure_of(error: Exception) -> CallFailed:
    """What a handler's exception means to the peer."""
    if isinstance(error, CallFailed):
        return error
    if isinstance(error, LookupError):
        return CallFailed(Code.NOT_FOUND, f"Not found: {error}")
    return CallFailed(Code.UNKNOWN, f"{type(error).__name__}: {error}")


def percent_encoded(message: str) -> str:
    """A text as the header `grpc-message` carries it (gRPC over HTTP/2, "Responses"), clipped."""
    printable = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
    # Three times this still fits into the smallest frame that a peer may insist on.
    return quote(message.encode(errors="replace")[:4096], safe=printable)
