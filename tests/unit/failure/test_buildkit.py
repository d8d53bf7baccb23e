"""BuildKit's words for what went wrong, and ours."""

import pytest

from imagewright.api.reason import Reason
from imagewright.clients.buildkit.errors import (
    BuildKitError,
    Details,
    SolveError,
    TLSRefused,
    Unreachable,
    Unsupported,
)
from imagewright.failure.buildkit import translate
from imagewright.ports import Failed, Rejected, Unavailable

PUSH = 'failed to push r.example/a:1: failed to do request: Head "http://r.example/v2/a": '
STATUS = "failed to push r.example/a:1: unexpected status from"
BLOB = f"http://registry.example:5000/v2/a/team/and/an/app/blobs/sha256:{'a' * 64}"
"""As daemons name it before the status that was answered."""
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
    "the token service does not accept the password": (
        "The token service https://t of the registry r answered 401: check the password.",
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
    "a registry whose certificate nobody knows": (
        "failed to push r.example/a:1: Head: x509: certificate signed by unknown authority",
        Reason.TLS_FAILED,
        False,
    ),
    "the registry's disk is full": (
        "failed to push r.example/a:1: status from PUT request: 500: no space left on device",
        Reason.REGISTRY_UNAVAILABLE,
        True,
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
    "the registry does not take the image": (
        "failed to push r.example/a:1: unexpected status from PUT: 400 Bad Request",
        Reason.REGISTRY_UNAVAILABLE,
        False,
    ),
    "the registry stops answering in the middle": (
        PUSH + "EOF",
        Reason.REGISTRY_UNAVAILABLE,
        True,
    ),
    "a registry that asks for fewer questions about a blob": (
        f"{STATUS} HEAD request to {BLOB}: 429 Too Many Requests",
        Reason.REGISTRY_UNAVAILABLE,
        True,
    ),
    "a registry that is down when a blob is sent": (
        f"{STATUS} PUT request to {BLOB}: 503 Service Unavailable",
        Reason.REGISTRY_UNAVAILABLE,
        True,
    ),
    "a registry that refuses a blob": (
        f"{STATUS} POST request to {BLOB}: 403 Forbidden",
        Reason.PUSH_UNAUTHORIZED,
        False,
    ),
    "a port of 503 is no status": (
        "failed to push r.example:503/a:1: manifest invalid",
        Reason.REGISTRY_UNAVAILABLE,
        False,
    ),
    "a Dockerfile that is empty": (
        "the Dockerfile cannot be empty",
        Reason.DOCKERFILE_INVALID,
        False,
    ),
    "a stage that is not there": (
        'target stage "nope" could not be found',
        Reason.DOCKERFILE_INVALID,
        False,
    ),
    "a repository that does not answer": (
        "failed to load cache key: failed to fetch remote https://git.example/a: exit status 128",
        Reason.SOURCE_UNAVAILABLE,
        False,
    ),
    "a download that is not there": (
        "failed to load cache key: invalid response status 404",
        Reason.SOURCE_UNAVAILABLE,
        False,
    ),
    "a base image that exists for other platforms": (
        "no match for platform in manifest: not found",
        Reason.SOURCE_UNAVAILABLE,
        False,
    ),
    "an entitlement": (
        "network.host is not allowed",
        Reason.FEATURE_UNSUPPORTED,
        False,
    ),
    "anything else": ("something nobody has met", Reason.BUILD_FAILED, False),
}


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


@pytest.mark.row("F15")
def test_an_exit_code_counts_more_than_what_the_step_printed() -> None:
    error = translate(SolveError("no space left on device: exit code: 1", Details("s", 1, 1)))
    assert error.reason is Reason.BUILD_FAILED
    assert "exit code 1" in error.message


def test_a_text_of_several_lines_becomes_one() -> None:
    error = translate(SolveError("first:\n\tsecond\n\n third!"))
    assert error.message == "first: second third!"
