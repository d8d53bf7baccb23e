"""BuildKit's words for what went wrong, and ours."""

import pytest

from imagewright.api.reason import Reason
from imagewright.builders.failure import translate
from imagewright.clients.buildkit.errors import (
    BuildKitError,
    Details,
    SolveError,
    TLSRefused,
    Unreachable,
    Unsupported,
)
from imagewright.ports import Failed, Rejected, Unavailable

PUSH = 'failed to push r.example/a:1: failed to do request: Head "http://r.example/v2/a": '
TEXTS: dict[str, tuple[str, Reason, bool]] = {
    "the registry is down": (
        PUSH + "dial tcp 127.0.0.1:9: connect: connection refused",
        Reason.REGISTRY_UNAVAILABLE,
        True,
    ),
    "the registry is overrun": (
        "failed to push r.example/a:1: unexpected status from PUT: 503 Service Unavailable",
        Reason.REGISTRY_UNAVAILABLE,
        True,
    ),
    "the registry wants to know who we are": (
        "failed to push r.example/a:1: unexpected status from HEAD request: 401 Unauthorized",
        Reason.PUSH_UNAUTHORIZED,
        False,
    ),
    "the registry does not let us push there": (
        "failed to push r.example/a:1: server message: insufficient_scope: authorization failed",
        Reason.PUSH_UNAUTHORIZED,
        False,
    ),
    "the registry wants a password, and no session has one": (
        "failed to push r.example/a:1: no active sessions",
        Reason.PUSH_UNAUTHORIZED,
        False,
    ),
    "the disk is full": (
        "failed to copy: write /x: no space left on device",
        Reason.DISK_FULL,
        False,
    ),
    "a digest that does not match": (
        "digest mismatch for https://a.example/c: sha256:a (expected: sha256:b)",
        Reason.SOURCE_UNAVAILABLE,
        False,
    ),
    "a PAX archive that is not compressed": (
        "dockerfile parse error on line 1: unknown instruction: ././@PaxHeader    0000000",
        Reason.SOURCE_UNAVAILABLE,
        False,
    ),
    "a revision that is not there": (
        'repository does not contain ref nope, output: ""',
        Reason.SOURCE_UNAVAILABLE,
        False,
    ),
    "a Dockerfile that is not there": (
        "failed to read dockerfile: open Dockerfile: no such file or directory",
        Reason.DOCKERFILE_INVALID,
        False,
    ),
    "a base image that is not there": (
        "r.example/x:1: failed to resolve source metadata for r.example/x:1: not found",
        Reason.SOURCE_UNAVAILABLE,
        False,
    ),
    "a base image whose registry is down": (
        "failed to resolve source metadata for r.example/x:1: dial tcp: connection refused",
        Reason.REGISTRY_UNAVAILABLE,
        True,
    ),
    "an entitlement": (
        "network.host is not allowed",
        Reason.FEATURE_UNSUPPORTED,
        False,
    ),
    "anything else": ("something nobody has met", Reason.BUILD_FAILED, False),
}


@pytest.mark.row("F30")
@pytest.mark.parametrize(("text", "reason", "again"), TEXTS.values(), ids=TEXTS)
def test_a_text_becomes_a_reason_and_a_sentence(text: str, reason: Reason, again: bool) -> None:
    error = translate(SolveError(text))
    assert error.reason is reason
    assert isinstance(error, Unavailable if again else Failed)
    assert error.message.endswith(".")
    assert text[:24] in error.message


@pytest.mark.row("F15")
@pytest.mark.parametrize(
    ("code", "reason"), [(7, Reason.BUILD_FAILED), (137, Reason.OUT_OF_MEMORY)]
)
def test_a_failed_process_keeps_its_place_and_code(code: int, reason: Reason) -> None:
    text = f"process did not complete successfully: exit code: {code}"
    error = translate(SolveError(text, Details("sha256:a", 3, code)))
    assert isinstance(error, Failed)
    assert (error.reason, error.step, error.line, error.exit_code) == (reason, "sha256:a", 3, code)


def test_a_line_without_a_step_is_a_fault_of_the_dockerfile() -> None:
    error = translate(SolveError("surprising", Details(line=2)))
    assert (error.reason, getattr(error, "line", None)) == (Reason.DOCKERFILE_INVALID, 2)


MEANINGS = [
    (Unreachable("gone"), Unavailable, Reason.BUILDER_UNAVAILABLE),
    (TLSRefused("bad certificate"), Unavailable, Reason.TLS_FAILED),
    (Unsupported("unknown method"), Rejected, Reason.FEATURE_UNSUPPORTED),
    (BuildKitError("else"), Failed, Reason.BUILD_FAILED),
]


@pytest.mark.parametrize(("error", "kind", "reason"), MEANINGS)
def test_every_error_of_the_client_has_a_meaning(
    error: BuildKitError, kind: type[Exception], reason: Reason
) -> None:
    found = translate(error)
    assert isinstance(found, kind)
    assert found.reason is reason
