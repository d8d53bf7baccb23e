"""A daemon that speaks as much of BuildKit as a prune asks, and can be held within one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from imagewright.clients.buildkit.control import CONTROL
from imagewright.clients.buildkit.proto import control_pb2


class FakeDaemon:
    """Answers as a BuildKit of `version`; a prune waits for `go`, which is set at first."""

    def __init__(self, version: str = "v0.32.2") -> None:
        self.version = version
        self.records: list[control_pb2.UsageRecord] = []
        self.pruned: list[control_pb2.PruneRequest] = []
        self.begun, self.cancelled, self.go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.go.set()
        self.address = ""

    async def info(self, _request: bytes, _context: object) -> control_pb2.InfoResponse:
        told = control_pb2.BuildkitVersion(version=self.version)
        return control_pb2.InfoResponse(buildkitVersion=told)

    async def workers(self, _request: bytes, _context: object) -> control_pb2.ListWorkersResponse:
        return control_pb2.ListWorkersResponse()

    async def usage(self, _request: bytes, _context: object) -> control_pb2.DiskUsageResponse:
        return control_pb2.DiskUsageResponse(record=self.records)

    async def prune(
        self, request: control_pb2.PruneRequest, _context: object
    ) -> AsyncIterator[control_pb2.UsageRecord]:
        self.pruned.append(request)
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        gone, self.records = self.records, []
        for record in gone:
            yield record


@asynccontextmanager
async def serving(daemon: FakeDaemon) -> AsyncIterator[FakeDaemon]:
    """The daemon on a port of its own while the context is open."""
    server = grpc.aio.server()
    handlers = {
        "Info": grpc.unary_unary_rpc_method_handler(
            daemon.info, response_serializer=control_pb2.InfoResponse.SerializeToString
        ),
        "ListWorkers": grpc.unary_unary_rpc_method_handler(
            daemon.workers, response_serializer=control_pb2.ListWorkersResponse.SerializeToString
        ),
        "DiskUsage": grpc.unary_unary_rpc_method_handler(
            daemon.usage, response_serializer=control_pb2.DiskUsageResponse.SerializeToString
        ),
        "Prune": grpc.unary_stream_rpc_method_handler(
            daemon.prune,
            control_pb2.PruneRequest.FromString,
            control_pb2.UsageRecord.SerializeToString,
        ),
    }
    service = CONTROL.strip("/")
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    daemon.address = f"tcp://127.0.0.1:{port}"
    await server.start()
    try:
        yield daemon
    finally:
        await server.stop(0.1)
