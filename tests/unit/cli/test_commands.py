"""The commands without a daemon: what they read, what they say of faults, what they log."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import structlog
import yaml
from click.testing import CliRunner

from imagewright.cli import main
from imagewright.cli.build import read_build
from imagewright.cli.run import configure_logs
from imagewright.settings import Settings
from tests.support.makers import INLINE

MANIFEST = {"apiVersion": "imagewright.dev/v1alpha1", "kind": "ImageBuild", "spec": INLINE}


def read(text: str) -> io.StringIO:
    """The text as a file of this name."""
    file = io.StringIO(text)
    file.name = "build.yaml"
    return file


def test_a_manifest_is_given_what_the_api_server_would_have_added() -> None:
    first, second = (read_build(read(yaml.safe_dump(MANIFEST))) for _ in range(2))
    assert (first.metadata.namespace, first.metadata.name) == ("default", "local")
    assert first.metadata.uid != second.metadata.uid
    assert first.metadata.generation == 1


def test_an_old_status_and_generation_in_a_manifest_do_not_count() -> None:
    done = {
        **MANIFEST,
        "metadata": {"name": "mine", "generation": 9},
        "status": {"phase": "Failed"},
    }
    found = read_build(read(yaml.safe_dump(done)))
    assert (found.metadata.name, found.metadata.generation) == ("mine", 1)
    assert found.status.phase is None


FAULTS = {
    "no YAML": ("a: [", "is no YAML with one object"),
    "two objects": ("a: 1\n---\nb: 2\n", "is no YAML with one object"),
    "nothing": ("", "Input should be a valid dictionary"),
    "a list": ("- a\n", "Input should be a valid dictionary"),
    "another kind": ("kind: Pod\nspec: {}\n", "kind: Input should be 'ImageBuild'"),
    "no spec": ("kind: ImageBuild\n", "spec: Field required"),
    "metadata that is a text": ("kind: ImageBuild\nmetadata: x\n", "metadata: Input should be"),
    "a fault deep inside": (
        yaml.safe_dump({**MANIFEST, "spec": {**INLINE, "images": ["ok", "A"]}}),
        "spec.images.1: A repository is written in lower case",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_with_its_file_and_place(text: str, sentence: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        read_build(read(text))
    assert "build.yaml" in caught.value.message
    assert sentence in caught.value.message


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["run", "--config", "nowhere.yaml"], 1, "nowhere.yaml cannot be read"),
        (["build", "-f", "nowhere.yaml"], 2, "No such file"),
        (["build"], 2, "Missing option '-f'"),
        (["fly"], 2, "No such command"),
        (["-h"], 0, "container image builds as a Kubernetes resource"),
        (["--version"], 0, "version 0."),
    ],
    ids=[
        "a configuration that is not there",
        "a manifest that is not there",
        "no manifest",
        "an unknown command",
        "the help",
        "the version",
    ],
)
def test_a_command_ends_with_a_sentence_and_a_code(
    arguments: list[str], code: int, sentence: str
) -> None:
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == code
    assert sentence in ended.output


def test_an_address_that_is_none_is_a_fault_of_usage(tmp_path: Path) -> None:
    path = tmp_path / "build.yaml"
    path.write_text(yaml.safe_dump(MANIFEST))
    ended = CliRunner().invoke(main, ["build", "-f", str(path), "--address", "b:1"])
    assert ended.exit_code == 2
    assert "write unix:///path or tcp://host:port" in ended.output


@pytest.fixture
def other_logs() -> Iterator[None]:
    """Whatever a test configures is taken back."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.row("S14")
def test_a_log_line_is_one_json_object_without_credentials(
    other_logs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(Settings())
    structlog.get_logger("t").warning("It\nfailed", url="https://me:hunter2@h.example/x")
    logging.getLogger("library").warning("GET https://me:%s@h.example/y", "hunter2")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["event"], first["level"]) == ("It\nfailed", "warning")
    assert first["url"] == "https://***@h.example/x"
    assert second["event"] == "GET https://***@h.example/y"


def test_what_is_below_the_level_is_not_logged(
    other_logs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(Settings(log_level="error"))
    structlog.get_logger("t2").warning("quiet")
    logging.getLogger("library").warning("quiet")
    structlog.get_logger("t3").error("loud")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "loud"
