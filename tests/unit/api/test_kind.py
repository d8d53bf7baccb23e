"""The kind: what it refuses, and what is generated from it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from imagewright.api.crd import imagebuild_crd
from imagewright.api.imagebuild import ImageBuild
from imagewright.api.reason import MEANING, Reason
from tests.integration.test_bad_input import REFUSED
from tests.support.makers import a_body

ROOT = Path(__file__).parents[3]
SERVER_ONLY = {"an unknown field", "the host's network"}
"""Here the API server has words of its own."""


@pytest.mark.row("S3")
@pytest.mark.row("S9")
@pytest.mark.row("S12")
@pytest.mark.parametrize(("spec", "sentence"), REFUSED.values(), ids=REFUSED)
def test_the_models_refuse_what_the_api_server_refuses(
    request: pytest.FixtureRequest, spec: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        ImageBuild.parse({**a_body(), "spec": spec})
    if not any(name in request.node.name for name in SERVER_ONLY):
        assert sentence in str(caught.value)


def schema_nodes(node: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every schema in the CRD, with where it stands."""
    found = [(path, node)]
    for name, inner in node.get("properties", {}).items():
        found += schema_nodes(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            found += schema_nodes(node[key], f"{path}[]")
    return found


def nodes() -> list[tuple[str, dict[str, Any]]]:
    """Of the one version there is."""
    (version,) = imagebuild_crd()["spec"]["versions"]
    return schema_nodes(version["schema"]["openAPIV3Schema"])


def test_every_field_is_described() -> None:
    fields = [(path, node) for path, node in nodes() if not path.endswith("[]")]
    assert [path for path, node in fields if not node.get("description")] == []
    assert len(fields) > 60


def test_the_schema_is_structural() -> None:
    for path, node in nodes():
        assert "type" in node, path
        assert not {"$ref", "anyOf", "allOf", "$defs"}.intersection(node), path
        assert node.get("default", "") is not None, path


def test_lists_say_how_they_are_merged() -> None:
    lists = [(path, node) for path, node in nodes() if node["type"] == "array"]
    assert [path for path, node in lists if "x-kubernetes-list-type" not in node] == []


def test_an_object_that_nobody_has_looked_at_says_so() -> None:
    status = dict(nodes())[".status"]
    assert status["default"] == {"observedGeneration": -1}


def test_what_is_generated_is_checked_in_twice_the_same() -> None:
    name = "imagewright.dev_imagebuilds.yaml"
    checked_in = (ROOT / "crds" / name).read_text()
    assert yaml.safe_load(checked_in) == imagebuild_crd()
    assert (ROOT / "charts/imagewright/files/crds" / name).read_text() == checked_in


def test_every_reason_has_a_sentence_and_is_documented() -> None:
    page = (ROOT / "docs/api/imagebuild.md").read_text()
    assert set(MEANING) == set(Reason)
    assert [reason for reason in Reason if f"`{reason}`" not in page] == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_every_example_is_an_image_build(path: Path) -> None:
    assert ImageBuild.parse(yaml.safe_load(path.read_text())).kind == "ImageBuild"


def test_operator_is_no_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
