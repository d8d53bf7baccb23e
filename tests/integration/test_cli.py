"""imagewright build: what the cluster will do, without a cluster."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import devstack
from devstack.images import crane, files_of


def build(spec: dict[str, Any], *options: str) -> "subprocess.CompletedProcess[str]":
    """The finished command, the object on its stdin."""
    body = {
        "apiVersion": "imagewright.dev/v1alpha1",
        "kind": "ImageBuild",
        "metadata": {"name": "local"},
        "spec": spec,
    }
    command = [sys.executable, "-m", "imagewright", "build", "-f", "-", *options]
    return subprocess.run(
        command, input=yaml.safe_dump(body), capture_output=True, text=True, check=False
    )


def inline(dockerfile: str, **more: Any) -> dict[str, Any]:
    """A spec with one file."""
    return {"source": {"inline": {"files": {"Dockerfile": dockerfile}}}, **more}


def test_a_build_prints_the_object_with_the_digest_that_the_registry_has(
    stack: devstack.Stack,
) -> None:
    image = f"{stack.registry}/cli:1"
    ended = build(inline("FROM scratch\nLABEL a=b\n", images=[image]), "--address", stack.buildkit)
    assert ended.returncode == 0, ended.stderr
    status = yaml.safe_load(ended.stdout)["status"]
    assert status["phase"] == "Succeeded"
    assert status["imageDigest"] == crane(stack, "digest", image)
    assert "#1 " in ended.stderr


def test_a_failing_step_shows_its_output_and_ends_with_1(stack: devstack.Stack) -> None:
    text = f"FROM {stack.base_image}\nRUN echo oh no >&2; exit 7\n"
    ended = build(inline(text), "--address", stack.buildkit)
    assert ended.returncode == 1
    status = yaml.safe_load(ended.stdout)["status"]
    assert status["failure"]["exitCode"] == 7
    assert status["logTail"] == "oh no\n"
    assert "oh no" in ended.stderr


def test_a_local_folder_stands_for_the_source(stack: devstack.Stack, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (tmp_path / "kept.txt").write_text("kept\n")
    (tmp_path / "left.txt").write_text("left\n")
    (tmp_path / ".dockerignore").write_text("left.txt\n")
    image = f"{stack.registry}/cli-context:1"
    spec = {"source": {"git": {"url": "https://git.example/app"}}, "images": [image]}
    ended = build(spec, "--address", stack.buildkit, "--context", str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    config = json.loads(crane(stack, "config", image))
    assert "COPY . /" in json.dumps(config["history"])
    assert sorted(files_of(stack, image)) == [".dockerignore", "Dockerfile", "kept.txt"]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"source": {}}, "give exactly one of inline"),
        (inline("FROM scratch", images=["r.example/A:1"]), "written in lower case"),
        (inline("FROM scratch", contextDir="../x"), "without '..'"),
        (inline("FROM scratch", nonsense=1), "Extra inputs are not permitted"),
    ],
    ids=["no source", "an upper-case image", "a contextDir that climbs out", "an unknown field"],
)
def test_bad_input_is_a_sentence_and_ends_with_2(spec: dict[str, Any], sentence: str) -> None:
    ended = build(spec)
    assert ended.returncode == 2
    assert sentence in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr


def test_a_worker_that_is_not_there_is_named(tmp_path: Path) -> None:
    ended = build(
        inline("FROM scratch\nLABEL a=b\n", activeDeadlineSeconds=1),
        "--address",
        f"unix://{tmp_path}/nobody.sock",
    )
    assert ended.returncode == 1
    assert yaml.safe_load(ended.stdout)["status"]["failure"]["reason"] in (
        "BuilderUnavailable",
        "DeadlineExceeded",
    )


def test_the_crds_command_prints_what_is_checked_in() -> None:
    command = [sys.executable, "-m", "imagewright", "crds"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = ("imagebuilds", "buildcacheprunes")
    checked_in = [Path(f"crds/imagewright.dev_{name}.yaml").read_text() for name in names]
    assert printed == "---\n".join(checked_in)
