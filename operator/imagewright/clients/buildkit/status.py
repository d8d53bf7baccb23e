"""The Status stream: what a running build says of itself, as plain values.

Events are upserts: the same vertex comes again whenever something of it changed, and may start a
second time after it had completed (once for the cache look-up, once for the work).
"""

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from imagewright.clients.buildkit.proto import control_pb2


@dataclass(frozen=True, slots=True)
class Vertex:
    """One step. Times are seconds since the epoch, None before they have come."""

    digest: str
    name: str
    cached: bool = False
    started: float | None = None
    completed: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Log:
    """Some bytes that a step printed: `stream` 1 is stdout, 2 stderr; not aligned to lines."""

    vertex: str
    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far a step is with one of its parts, in bytes mostly; `total` is 0 where unknown."""

    vertex: str
    id: str
    current: int
    total: int


@dataclass(frozen=True, slots=True)
class Event:
    """What came in one message."""

    vertexes: tuple[Vertex, ...] = ()
    logs: tuple[Log, ...] = ()
    transfers: tuple[Transfer, ...] = ()


def event_of(message: control_pb2.StatusResponse) -> Event:
    """The message as values that outlive it."""
    return Event(
        vertexes=tuple(
            Vertex(
                digest=vertex.digest,
                name=vertex.name,
                cached=vertex.cached,
                started=seconds_of(vertex.started) if vertex.HasField("started") else None,
                completed=seconds_of(vertex.completed) if vertex.HasField("completed") else None,
                error=vertex.error,
            )
            for vertex in message.vertexes
        ),
        logs=tuple(Log(log.vertex, log.stream, log.msg) for log in message.logs),
        transfers=tuple(
            Transfer(part.vertex, part.ID, part.current, part.total) for part in message.statuses
        ),
    )


def seconds_of(stamp: Timestamp) -> float:
    """Seconds since the epoch."""
    return stamp.seconds + stamp.nanos / 1e9
