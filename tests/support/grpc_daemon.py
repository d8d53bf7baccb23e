"""A daemon's gRPC server that answers what a test wants, on a socket of its own."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

Answer = Callable[[bytes, Any], Awaitable[bytes] | AsyncIterator[bytes]]
"""Takes the request's bytes and grpc's context."""


class Daemon(grpc.GenericRpcHandler):
    """Answers by the full name of the method; an asynchronous generator answers with a stream."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = answers

    def service(self, handler_call_details: Any) -> Any:
        """grpc's look-up; None is UNIMPLEMENTED."""
        answer = self.answers.get(handler_call_details.method)
        if answer is None:
            return None
        if inspect.isasyncgenfunction(answer):
            return grpc.unary_stream_rpc_method_handler(answer)
        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def serve_daemon(socket: Path, daemon: Daemon) -> AsyncIterator[str]:
    """Serve it; yields its address."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((daemon,))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    yield f"unix://{socket}"
    await server.stop(0)
