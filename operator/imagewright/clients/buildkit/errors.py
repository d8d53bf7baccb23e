"""What a BuildKit daemon's answer can mean, and the one translation from gRPC.

```
BuildKitError
├── Unreachable      nobody answered, or the wire broke: the same call may pass later
│   └── TLSRefused   one side did not accept the other's certificate
├── Unsupported      this daemon does not know the call
└── SolveError       the daemon answered, and the answer is no
```

BuildKit sends most failures as UNKNOWN with a text for people; what a program wants (which step,
which line, which exit code) travels as JSON in the trailer `grpc-status-details-bin`
(BuildKit's `solver/errdefs`, v0.9 and later).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from imagewright.clients.buildkit.proto import control_pb2

DETAILS = "grpc-status-details-bin"
# The daemon repeats it in the text where no typed detail came (v0.8).
EXIT_CODE = re.compile(r"exit code: (\d+)")
TLS_WORDS = ("ssl", "tls", "tsi_", "certificate", "hostname verification", "handshake")


class BuildKitError(Exception):
    """Anything that went wrong between us and a BuildKit daemon. Its text is one for people."""


class Unreachable(BuildKitError):
    """Nobody answered, or the wire broke."""


class TLSRefused(Unreachable):
    """One side did not accept the other's certificate, or one of them spoke plain text."""


class Unsupported(BuildKitError):
    """The daemon does not know this call: it is older than the call."""


@dataclass(frozen=True, slots=True)
class Details:
    """What the daemon said of a failure beside its text: nothing is guaranteed to be there."""

    vertex: str = ""
    """Digest of the step that failed, as in the Status stream."""
    line: int | None = None
    """First line of the instruction in the Dockerfile, from 1."""
    exit_code: int | None = None
    """Of the failed process; 128 + n for signal n."""
    types: frozenset[str] = frozenset()
    """Names of all details that came, such as `errdefs.Source`."""


class SolveError(BuildKitError):
    """The daemon answered, and the answer is no. Its text is the daemon's own."""

    def __init__(self, message: str, details: Details | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or Details()


# Every gRPC status has a row; a test walks grpc.StatusCode to prove it. UNKNOWN is what Go's
# servers answer for a plain error, so it carries nearly all the failures of builds.
MEANINGS: dict[grpc.StatusCode, type[BuildKitError]] = {
    grpc.StatusCode.OK: SolveError,
    grpc.StatusCode.CANCELLED: Unreachable,
    grpc.StatusCode.UNKNOWN: SolveError,
    grpc.StatusCode.INVALID_ARGUMENT: SolveError,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unreachable,
    grpc.StatusCode.NOT_FOUND: SolveError,
    grpc.StatusCode.ALREADY_EXISTS: SolveError,
    grpc.StatusCode.PERMISSION_DENIED: SolveError,
    grpc.StatusCode.UNAUTHENTICATED: SolveError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: SolveError,
    grpc.StatusCode.FAILED_PRECONDITION: SolveError,
    grpc.StatusCode.ABORTED: Unreachable,
    grpc.StatusCode.OUT_OF_RANGE: SolveError,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
    grpc.StatusCode.INTERNAL: SolveError,
    grpc.StatusCode.UNAVAILABLE: Unreachable,
    grpc.StatusCode.DATA_LOSS: Unreachable,
}


def translate(error: grpc.aio.AioRpcError) -> BuildKitError:
    """The meaning of a failed call, with the typed details where the daemon sent some."""
    text = error.details() or error.code().name
    kind = MEANINGS[error.code()]
    if kind is Unreachable and any(word in text.lower() for word in TLS_WORDS):
        return TLSRefused(text)
    if kind is SolveError:
        # A daemon that shuts down answers a running Solve with its own cancelled context.
        if text.endswith("context canceled"):
            return Unreachable(text)
        return SolveError(text, details_of(error, text))
    return kind(text)


def details_of(error: grpc.aio.AioRpcError, text: str) -> Details:
    """The typed details of a failed call; the exit code also from its text."""
    vertex, line, code, types = "", None, None, set()
    for name, value in _typed(error):
        types.add(name)
        if name == "errdefs.Vertex":
            vertex = str(value.get("digest", ""))
        elif name == "errdefs.Source" and line is None:
            line = _first_line(value)
        elif name.endswith("ExitMessage"):
            code = int(value.get("Code") or value.get("code") or 0)
    if code is None and (found := EXIT_CODE.search(text)):
        code = int(found[1])
    return Details(vertex=vertex, line=line, exit_code=code, types=frozenset(types))


def _typed(error: grpc.aio.AioRpcError) -> Iterator[tuple[str, dict[str, Any]]]:
    """The details by short name. Stacks are left out: they are for the daemon's makers."""
    for key, raw in error.trailing_metadata() or ():
        if key != DETAILS or not isinstance(raw, bytes):
            continue
        try:
            status = control_pb2.ErrorStatus.FromString(raw)
        except DecodeError:
            return
        for detail in status.details:
            name = detail.type_url.rpartition("/")[2]
            if name.endswith("+json") and "Stack" not in name:
                yield name.removesuffix("+json"), _object(detail.value)


def _object(value: bytes) -> dict[str, Any]:
    """A JSON object, or an empty one where the bytes are something else."""
    try:
        found = json.loads(value)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _first_line(source: dict[str, Any]) -> int | None:
    lines = [(part.get("start") or {}).get("line") for part in source.get("ranges") or ()]
    return min((int(line) for line in lines if line), default=None)
