"""Calls of ours that are cancelled, without what grpc.aio then never frees.

Its `execute_batch` (aio/callback_common.pyx.pxi) frees what a call sent and received once the core
has answered; where the task that waits for that is cancelled, it never does: 1.1 KB for each Solve
with its Status, measured with grpcio 1.85.1. A call's own `cancel()` cancels that task too. So the
call is cancelled in the core alone, which then answers at once.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc
from grpc.aio import _call

AnswerT = TypeVar("AnswerT")


class Pipe:
    """A call that streams bytes both ways, for who may be cancelled while they read or write."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
        self._call = call

    async def read(self) -> object:
        """The next message as bytes; anything else means that there are no more."""
        return await answer_of(self._call, self._call.read())

    async def write(self, message: bytes, /) -> None:
        """Send one message; one at a time."""
        await answer_of(self._call, self._call.write(message))

    def cancel(self) -> None:
        """End the call."""
        stop(self._call)


async def answer_of(call: grpc.aio.Call, waiting: Awaitable[AnswerT]) -> AnswerT:
    """What is waited for of the call. Who cancels this cancels the call."""
    task = asyncio.ensure_future(waiting)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # It ends with the call, and nobody hears how.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        stop(call)
        raise


def stop(call: grpc.aio.Call) -> None:
    """Cancel the call; whoever still waits for it goes on waiting, until the core has answered."""
    inner: Any = call
    _call.Call.cancel(inner)
