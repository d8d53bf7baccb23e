"""gRPC's statuses and BuildKit's typed details, whatever shape they come in."""

import json
from typing import Any

import grpc
import pytest

from imagewright.clients.buildkit.errors import (
    BuildKitError,
    SolveError,
    TLSRefused,
    Unreachable,
    Unsupported,
    translate,
)
from imagewright.clients.buildkit.proto import control_pb2

AGAIN = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


def failed(
    code: grpc.StatusCode, text: str | None = "why", details: list[tuple[str, Any]] | None = None
) -> BuildKitError:
    """What a failed call with these details means."""
    trailer = grpc.aio.Metadata(("other", "text"), ("other-bin", b"\x01"))
    if details is not None:
        status = control_pb2.ErrorStatus(code=2, message=text or "")
        for name, value in details:
            raw = value if isinstance(value, bytes) else json.dumps(value).encode()
            status.details.add(type_url=f"github.com/moby/buildkit/{name}", value=raw)
        trailer.add("grpc-status-details-bin", status.SerializeToString())
    return translate(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailer, details=text))


@pytest.mark.parametrize("code", grpc.StatusCode, ids=lambda code: code.name)
def test_every_status_means_try_again_or_not_known_or_no(code: grpc.StatusCode) -> None:
    expected: type[BuildKitError] = Unreachable if code in AGAIN else SolveError
    if code is grpc.StatusCode.UNIMPLEMENTED:
        expected = Unsupported
    error = failed(code)
    assert type(error) is expected
    assert str(error) == "why"


@pytest.mark.parametrize("text", [None, ""], ids=["none", "an empty one"])
def test_a_status_without_a_text_is_named(text: str | None) -> None:
    assert str(failed(grpc.StatusCode.UNAVAILABLE, text)) == "UNAVAILABLE"


@pytest.mark.row("S21")
@pytest.mark.parametrize(
    "text",
    [
        "failed to connect to all addresses; last error: Ssl handshake failed (TSI_PROTOCOL_FAIL)",
        "tls: bad certificate",
        "remote error: unknown certificate authority",
        "Hostname Verification Check failed.",
    ],
)
def test_a_refused_certificate_is_no_mere_outage(text: str) -> None:
    assert type(failed(grpc.StatusCode.UNAVAILABLE, text)) is TLSRefused
    assert type(failed(grpc.StatusCode.UNKNOWN, text)) is SolveError


SOURCE = {"info": {"filename": "Dockerfile"}, "ranges": [{"start": {"line": 7, "character": 3}}]}
DETAILS: dict[str, tuple[list[tuple[str, Any]], tuple[str, int | None, int | None]]] = {
    "nothing": ([], ("", None, None)),
    "all of them": (
        [
            ("errdefs.Vertex+json", {"digest": "sha256:a"}),
            ("errdefs.Source+json", SOURCE),
            ("gatewayapi.ExitMessage+json", {"Code": 2}),
        ],
        ("sha256:a", 7, 2),
    ),
    "an exit code in small letters": (
        [("gatewayapi.ExitMessage+json", {"code": 9})],
        ("", None, 9),
    ),
    "two sources: the first is where it happened": (
        [
            ("errdefs.Source+json", SOURCE),
            ("errdefs.Source+json", {"ranges": [{"start": {"line": 1}}]}),
        ],
        ("", 7, None),
    ),
    "several ranges: the first line counts": (
        [("errdefs.Source+json", {"ranges": [{"start": {"line": 9}}, {"start": {"line": 8}}]})],
        ("", 8, None),
    ),
    "ranges without a line": (
        [("errdefs.Source+json", {"ranges": [{"start": {}}, {"start": None}, {}]})],
        ("", None, None),
    ),
    "no ranges": ([("errdefs.Source+json", {"ranges": None})], ("", None, None)),
    "JSON that is no object": ([("errdefs.Vertex+json", ["sha256:a"])], ("", None, None)),
    "bytes that are no JSON": ([("errdefs.Vertex+json", b"\xff{")], ("", None, None)),
    "a detail that is no JSON by its name": (
        [("errdefs.Vertex", {"digest": "sha256:a"})],
        ("", None, None),
    ),
    "a detail of another maker": ([("other.Thing+json", {"digest": "x"})], ("", None, None)),
    "the stack of the daemon": ([("stack.Stack+json", {"frames": [1]})], ("", None, None)),
}


@pytest.mark.row("F15")
@pytest.mark.parametrize(("details", "expected"), DETAILS.values(), ids=DETAILS)
def test_what_can_be_read_of_the_details_is_read(
    details: list[tuple[str, Any]], expected: tuple[str, int | None, int | None]
) -> None:
    error = failed(grpc.StatusCode.UNKNOWN, details=details)
    assert isinstance(error, SolveError)
    found = error.details
    assert (found.vertex, found.line, found.exit_code) == expected


def test_an_old_daemon_tells_the_exit_code_in_its_text() -> None:
    error = failed(grpc.StatusCode.UNKNOWN, 'process "/bin/sh" did not complete: exit code: 137')
    assert isinstance(error, SolveError)
    assert error.details.exit_code == 137


@pytest.mark.row("F10")
def test_a_daemon_that_goes_down_in_mid_build_has_not_said_no() -> None:
    text = "failed to solve: Canceled: context canceled"
    assert type(failed(grpc.StatusCode.UNKNOWN, text)) is Unreachable
    assert type(failed(grpc.StatusCode.UNKNOWN, f"{text} by a step")) is SolveError
