"""Bad input is met with a sentence that says what to do, and never with a trace."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import devstack
from devstack.builds import Builds
from devstack.gitserver import make_repository, serve_git
from devstack.operator import OperatorProcess
from devstack.webserver import pack, serve
from tests.support.stack import REPOSITORY, Kubectl

FILES = {"Dockerfile": "FROM scratch\nLABEL a=b\n"}
INLINE = {"inline": {"files": FILES}}
GIT = {"url": "https://git.example/app"}


def named(image: str) -> dict[str, Any]:
    """A spec that pushes under this name."""
    return {"source": INLINE, "images": [image]}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no source": ({"source": {}}, "give exactly one of inline"),
    "two sources": ({"source": {**INLINE, "git": GIT}}, "give exactly one of inline"),
    "a contextDir that climbs out": (
        {"source": INLINE, "contextDir": "../x"},
        "write a relative path without '..'",
    ),
    "an absolute contextDir": ({"source": INLINE, "contextDir": "/x"}, "relative path"),
    "an image with a digest": (named(f"r.example/a@sha256:{'0' * 64}"), "leave out '@'"),
    "an image in upper case": (named("r.example/App:1"), "written in lower case"),
    "an image with a comma": (named("r.example/a:1,r.example/b:1"), "an item of its own"),
    "an image with an equals sign": (named("r.example/a:1=x"), "an item of its own"),
    "an image that is none": (named("r.example/a:"), "[registry/]repository[:tag]"),
    "a revision that is an option": (
        {"source": {"git": {**GIT, "revision": "--upload-pack=x"}}},
        "may not begin with '-'",
    ),
    "a revision with a blank": (
        {"source": {"git": {**GIT, "revision": "a b"}}},
        "letters, digits and ._/@+-",
    ),
    "credentials in a git url": (
        {"source": {"git": {"url": "https://me:secret@git.example/app"}}},
        "carries no user or password",
    ),
    "a git url with a fragment": (
        {"source": {"git": {"url": "https://git.example/app#main:x"}}},
        "the revision goes into spec.source.git.revision",
    ),
    "a sha256 that is too short": (
        {"source": {"http": {"url": "https://a.example/c.tar", "sha256": "abc"}}},
        "64 digits in lower-case hex",
    ),
    "a build argument that chooses the frontend": (
        {"source": INLINE, "buildArgs": [{"name": "BUILDKIT_SYNTAX", "value": "evil"}]},
        "belong to the operator",
    ),
    "a build argument with a blank": (
        {"source": INLINE, "buildArgs": [{"name": "a b"}]},
        "named like a variable",
    ),
    "an inline path that climbs out": (
        {"source": {"inline": {"files": {"../evil": "x"}}}},
        "relative and plain",
    ),
    "inline files that are too large": (
        {"source": {"inline": {"files": {"a": "x" * 200_000, "b": "x" * 200_000}}}},
        "256 KiB in all",
    ),
    "a Dockerfile in two places": (
        {"source": INLINE, "dockerfile": "x", "dockerfileInline": "FROM scratch"},
        "leave out spec.dockerfile",
    ),
    "a platform without a slash": ({"source": INLINE, "platforms": ["arm64"]}, "os/arch"),
    "a label with a blank": (
        {"source": INLINE, "labels": {"a b": "c"}},
        "label's key is one word",
    ),
    "an unknown field": (
        {"source": INLINE, "privileged": True},
        "field not declared in schema",
    ),
    "a network that there is not": (
        {"source": INLINE, "network": "bridge"},
        'supported values: "default", "none", "host"',
    ),
    "a pool in capitals": ({"source": INLINE, "pool": "GPU"}, "no name of a pool"),
    "a priority over all bounds": ({"source": INLINE, "priority": 1001}, "less than or equal to"),
}


@pytest.mark.row("S3")
@pytest.mark.row("S9")
@pytest.mark.row("S6")
@pytest.mark.parametrize(("spec", "sentence"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_at_kubectl_apply(
    kubectl: Kubectl, spec: dict[str, Any], sentence: str
) -> None:
    manifest = {
        "apiVersion": "imagewright.dev/v1alpha1",
        "kind": "ImageBuild",
        "metadata": {"name": "bad"},
        "spec": spec,
    }
    ended = kubectl.run("apply", "--server-side", "--filename=-", text=yaml.safe_dump(manifest))
    assert ended.returncode != 0
    assert sentence in ended.stderr


FAILING: dict[str, tuple[dict[str, Any], str, str, int | None]] = {
    "a typo in the Dockerfile": (
        {"source": {"inline": {"files": {"Dockerfile": "FROM scratch\nCOPPY a b\n"}}}},
        "DockerfileInvalid",
        "did you mean COPY?",
        2,
    ),
    "no Dockerfile": (
        {"source": {"inline": {"files": {"a": "b"}}}},
        "DockerfileInvalid",
        "Correct the Dockerfile, or the path",
        None,
    ),
    "a target that does not exist": (
        {"source": INLINE, "target": "nope"},
        "DockerfileInvalid",
        'target stage "nope" could not be found',
        None,
    ),
    "a contextDir that is not there": (
        {"source": INLINE, "contextDir": "nope"},
        "SourceUnavailable",
        "no inline file lies there",
        None,
    ),
    "a git server that is not there": (
        {"source": {"git": {"url": "git://127.0.0.1:9/app"}}},
        "SourceUnavailable",
        "check its URL",
        None,
    ),
    "a URL that is not there": (
        {"source": {"http": {"url": "http://127.0.0.1:9/c.tar.gz"}}},
        "SourceUnavailable",
        "check its URL",
        None,
    ),
    "a copied file that is not there": (
        {"source": {"inline": {"files": {"Dockerfile": "FROM scratch\nCOPY nope /\n"}}}},
        "BuildFailed",
        "not found",
        2,
    ),
}


@pytest.mark.parametrize("case", FAILING.values(), ids=FAILING)
async def test_it_fails_with_a_reason_and_a_sentence(
    builds: Builds,
    operator: OperatorProcess,
    case: tuple[dict[str, Any], str, str, int | None],
) -> None:
    spec, reason, sentence, line = case
    await builds.create("bad", spec)
    failure = (await builds.ended("bad")).status["failure"]
    assert failure["reason"] == reason, failure
    assert sentence in failure["message"]
    assert failure.get("line") == line
    assert failure["retryable"] is False
    assert not [event for event in operator.events() if "exception" in event]


async def test_a_revision_that_does_not_exist_is_named(
    builds: Builds, operator: OperatorProcess, tmp_path: Path
) -> None:
    make_repository(tmp_path / "app", REPOSITORY, tag="v1")
    with serve_git(tmp_path) as url:
        await builds.create("bad", {"source": {"git": {"url": f"{url}/app", "revision": "nope"}}})
        failure = (await builds.ended("bad")).status["failure"]
    assert failure["reason"] == "SourceUnavailable"
    assert "correct spec.source.git.revision" in failure["message"]
    assert operator.process.poll() is None


@pytest.mark.usefixtures("operator")
async def test_a_download_with_another_digest_is_refused(builds: Builds) -> None:
    served = serve({"/c.tar.gz": pack(FILES)}, "/c.tar.gz")
    try:
        source = {"http": {"url": served.url, "sha256": "0" * 64}}
        await builds.create("bad", {"source": source})
        await builds.create(
            "own", {"source": source, "dockerfileInline": "FROM scratch\nCOPY . /\n"}
        )
        for name in ("bad", "own"):
            failure = (await builds.ended(name)).status["failure"]
            assert failure["reason"] == "SourceUnavailable"
            assert "spec.source.http.sha256" in failure["message"]
    finally:
        served.stop()


async def test_a_base_image_that_is_not_there_is_named(
    stack: devstack.Stack, builds: Builds, operator: OperatorProcess
) -> None:
    text = f"FROM {stack.registry}/nope:1\nRUN true\n"
    await builds.create("bad", {"source": {"inline": {"files": {"Dockerfile": text}}}})
    failure = (await builds.ended("bad")).status["failure"]
    assert failure["reason"] == "SourceUnavailable"
    assert "base image" in failure["message"]
    assert operator.process.poll() is None
