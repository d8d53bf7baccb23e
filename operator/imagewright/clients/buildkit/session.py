"""A session: what a daemon may ask of its client while it builds, over one call of the client.

The client opens `Control.Session` and becomes a gRPC server inside of it: every message of that
call is a piece of an HTTP/2 connection on which the daemon opens streams (BuildKit's
session/grpc.go and session/grpchijack). The session's id goes into the SolveRequest.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

import grpc

from imagewright.clients.buildkit.calls import Handler, unary
from imagewright.clients.buildkit.errors import (
    BuildKitError,
    Unreachable,
    Unsupported,
    translate,
)
from imagewright.clients.buildkit.http2 import Connection
from imagewright.clients.buildkit.wire import bytes_message, parse_bytes_message

ID = "x-docker-expose-session-uuid"
SHARED_KEY = "x-docker-expose-session-sharedkey"
METHOD = "x-docker-expose-session-grpc-method"
HEALTH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
"""A HealthCheckResponse that says SERVING (grpc.health.v1: status = 1, SERVING = 1)."""

Metadata = Sequence[tuple[str, str]]


class Pipe(Protocol):
    """The call that carries a session."""

    async def read(self) -> object:
        """The daemon's next message as bytes; anything else means that there are no more."""
        ...

    async def write(self, message: bytes, /) -> None:
        """Send one message; one at a time."""
        ...

    def cancel(self) -> object:
        """End the call."""
        ...


class SessionLost(Unreachable):
    """The daemon ended the session, or broke its protocol, while it was still wanted."""


class Session:
    """Serves `handlers` (by the full name of the method) to a daemon for as long as it is entered.

    If the daemon goes away meanwhile, the body of the `async with` is cancelled, and leaving it
    raises SessionLost, or Unreachable or Unsupported with the daemon's reason. An exception that
    the body raised by itself comes out unchanged.

    `shared_key` names what is sent: between sessions with the same key the daemon asks only for
    files whose size or time has changed. Without one nothing is shared.
    """

    def __init__(
        self,
        open_pipe: Callable[[Metadata], Pipe],
        handlers: Mapping[str, Handler],
        shared_key: str = "",
    ) -> None:
        self.id = secrets.token_hex(16)
        self._open = open_pipe
        self._handlers = {HEALTH: unary(_healthy), **handlers}
        self._shared_key = shared_key
        self._failure: BuildKitError | None = None

    @property
    def metadata(self) -> Metadata:
        """What the daemon is told at the beginning: a method that is not listed is not called."""
        methods = ((METHOD, path) for path in self._handlers)
        return ((ID, self.id), (SHARED_KEY, self._shared_key or self.id), *methods)

    async def __aenter__(self) -> Self:
        body = asyncio.current_task()
        if body is None:
            raise RuntimeError("A session needs a task to live in.")
        self._body, self._cancelling = body, body.cancelling()
        self._connection = Connection(self._handlers)
        self._pipe = self._open(self.metadata)
        self._pump = asyncio.create_task(self._run(), name=f"session {self.id}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        failure = self._failure
        self._pump.cancel()
        self._pipe.cancel()
        await asyncio.gather(self._pump, self._connection.close(), return_exceptions=True)
        # As asyncio.timeout() does: a cancellation that was ours becomes the reason for it.
        ours = failure is not None and self._body.uncancel() <= self._cancelling
        if failure and ours and isinstance(error, asyncio.CancelledError):
            raise failure

    async def _run(self) -> None:
        """Move bytes both ways, until cancelled or until the call is over."""
        sender = asyncio.create_task(self._send(), name=f"session {self.id} sends")
        try:
            await self._receive()
        except asyncio.CancelledError:
            # A call that was cancelled elsewhere, with its channel, looks as if we had been.
            if _is_cancelled():
                raise
            self._lose(SessionLost("The call that carried the session was cancelled."))
        except Exception as error:  # noqa: BLE001  # whatever it is, the session is over
            self._lose(_meaning(error))
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _receive(self) -> None:
        while isinstance(message := await self._pipe.read(), bytes):
            self._connection.feed(parse_bytes_message(message))
        raise SessionLost("The daemon ended the session.")

    async def _send(self) -> None:
        try:
            while True:
                await self._pipe.write(bytes_message(await self._connection.outgoing()))
        finally:
            # Only reading tells why a call is over; and if it was not over, it is now.
            self._pipe.cancel()

    def _lose(self, failure: BuildKitError) -> None:
        self._failure = failure
        self._body.cancel()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _meaning(error: Exception) -> BuildKitError:
    """Why the session is over, with the error itself as the cause."""
    meaning: BuildKitError = SessionLost(f"The session broke: {error}")
    if isinstance(error, BuildKitError):
        return error
    if isinstance(error, grpc.aio.AioRpcError):
        meaning = translate(error)
        if not isinstance(meaning, (Unreachable, Unsupported)):
            # The daemon's verdict on the session is none on the build.
            meaning = SessionLost(str(meaning))
    meaning.__cause__ = error
    return meaning


async def _healthy(_: bytes) -> bytes:
    return SERVING
