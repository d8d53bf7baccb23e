"""An engine's words for what went wrong, and ours."""

import pytest

from imagewright.api.reason import Reason
from imagewright.clients.engine.errors import (
    EngineError,
    NoResult,
    Refused,
    StreamError,
    TlsFailed,
    Unreachable,
    Unsupported,
)
from imagewright.failure.engine import translate
from imagewright.ports import Failed, Rejected, Unavailable

TEXTS: dict[str, tuple[str, Reason, bool]] = {
    "nothing to squash": (
        "error squashing image: cannot provide diff to non-parent",
        Reason.SQUASH_FAILED,
        False,
    ),
    "a store that cannot squash": (
        "error squashing image: not implemented",
        Reason.SQUASH_FAILED,
        False,
    ),
    "a mount": (
        "the --mount option requires BuildKit. Refer to the documentation",
        Reason.FEATURE_UNSUPPORTED,
        False,
    ),
    "no Dockerfile": (
        "Cannot locate specified Dockerfile: Dockerfile",
        Reason.DOCKERFILE_INVALID,
        False,
    ),
    "a Dockerfile outside": (
        "forbidden path outside the build context: ../../etc/passwd ()",
        Reason.DOCKERFILE_INVALID,
        False,
    ),
    "nothing was built": (
        "No image was generated. Is your Dockerfile empty?",
        Reason.DOCKERFILE_INVALID,
        False,
    ),
    "an unknown stage of an old engine": (
        "failed to reach build target nope in Dockerfile",
        Reason.DOCKERFILE_INVALID,
        False,
    ),
    "an unknown instruction": (
        "dockerfile parse error on line 2: unknown instruction: FOO",
        Reason.DOCKERFILE_INVALID,
        False,
    ),
    "a base image that is not there": (
        "manifest for 127.0.0.1:5000/nope:latest not found: manifest unknown",
        Reason.SOURCE_UNAVAILABLE,
        False,
    ),
    "a base image behind a registry that is down": (
        'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
        Reason.REGISTRY_UNAVAILABLE,
        True,
    ),
    "a base image in a registry that wants to be asked less often": (
        "toomanyrequests: You have reached your unauthenticated pull rate limit.",
        Reason.REGISTRY_UNAVAILABLE,
        True,
    ),
    "a file that is not in the context": (
        "COPY failed: file not found in build context or excluded by .dockerignore: stat nofile",
        Reason.BUILD_FAILED,
        False,
    ),
}


@pytest.mark.row("B44")
@pytest.mark.parametrize(("text", "reason", "again"), TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("kind", [StreamError, lambda text: Refused(text, 500)])
def test_a_text_becomes_a_reason_before_output_and_after(
    kind: type[StreamError], text: str, reason: Reason, again: bool
) -> None:
    error = translate(kind(text))
    assert error.reason is reason
    assert isinstance(error, Unavailable if again else Failed)
    assert text[:24] in error.message


@pytest.mark.row("B43")
@pytest.mark.parametrize(
    ("code", "reason"), [(7, Reason.BUILD_FAILED), (137, Reason.OUT_OF_MEMORY)]
)
def test_a_failed_step_keeps_its_exit_code(code: int, reason: Reason) -> None:
    error = translate(StreamError(f"returned a non-zero code: {code}", code))
    assert isinstance(error, Failed)
    assert (error.reason, error.exit_code) == (reason, code)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("unauthorized: authentication required", Reason.PUSH_UNAUTHORIZED),
        ("no basic auth credentials", Reason.PUSH_UNAUTHORIZED),
        ("dial tcp 127.0.0.1:1: connect: connection refused", Reason.REGISTRY_UNAVAILABLE),
        ("tag does not exist: a:1", Reason.REGISTRY_UNAVAILABLE),
        ("toomanyrequests:", Reason.REGISTRY_UNAVAILABLE),
    ],
)
def test_what_was_being_done_decides_where_the_text_is_not_enough(
    text: str, reason: Reason
) -> None:
    assert translate(StreamError(text), "failed to push r.example/a:1").reason is reason


MEANINGS = [
    (Unreachable("gone"), Unavailable, Reason.BUILDER_UNAVAILABLE),
    (TlsFailed("bad certificate"), Unavailable, Reason.TLS_FAILED),
    (Unsupported("too old"), Rejected, Reason.FEATURE_UNSUPPORTED),
    (NoResult("no image"), Failed, Reason.BUILD_FAILED),
    (Refused("busy", 503), Unavailable, Reason.BUILDER_UNAVAILABLE),
    (EngineError("else"), Failed, Reason.BUILD_FAILED),
]


@pytest.mark.parametrize(("error", "kind", "reason"), MEANINGS)
def test_every_error_of_the_client_has_a_meaning(
    error: EngineError, kind: type[Exception], reason: Reason
) -> None:
    found = translate(error)
    assert isinstance(found, kind)
    assert found.reason is reason
