"""The kind: what it refuses, and what is generated from it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from imagewright.api.buildcacheprune import BuildCachePrune
from imagewright.api.crd import KINDS, Kind, crd_of
from imagewright.api.imagebuild import ImageBuild
from imagewright.api.reason import MEANING, Reason
from tests.integration.test_bad_input import REFUSED
from tests.support.makers import a_body

ROOT = Path(__file__).parents[3]
SERVER_ONLY = {"an unknown field", "a network that there is not", "a priority over all bounds"}
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


def nodes(kind: Kind) -> list[tuple[str, dict[str, Any]]]:
    """Of the one version there is."""
    (version,) = crd_of(kind)["spec"]["versions"]
    return schema_nodes(version["schema"]["openAPIV3Schema"])


each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@each_kind
def test_every_field_is_described(kind: Kind) -> None:
    fields = [(path, node) for path, node in nodes(kind) if not path.endswith("[]")]
    assert [path for path, node in fields if not node.get("description")] == []
    assert len(fields) > 40


@each_kind
def test_the_schema_is_structural(kind: Kind) -> None:
    for path, node in nodes(kind):
        assert "type" in node, path
        assert not {"$ref", "anyOf", "allOf", "$defs"}.intersection(node), path
        assert "null" not in json.dumps(node.get("default", "")), path


@each_kind
def test_lists_say_how_they_are_merged(kind: Kind) -> None:
    lists = [(path, node) for path, node in nodes(kind) if node["type"] == "array"]
    assert [path for path, node in lists if "x-kubernetes-list-type" not in node] == []


@each_kind
def test_an_object_that_nobody_has_looked_at_says_so(kind: Kind) -> None:
    status = dict(nodes(kind))[".status"]
    assert status["default"] == {"observedGeneration": -1}


@each_kind
def test_what_is_generated_is_checked_in_twice_the_same(kind: Kind) -> None:
    name = f"imagewright.dev_{kind.plural}.yaml"
    checked_in = (ROOT / "crds" / name).read_text()
    assert yaml.safe_load(checked_in) == crd_of(kind)
    assert (ROOT / "charts/imagewright/files/crds" / name).read_text() == checked_in


def test_every_reason_has_a_sentence_and_is_documented() -> None:
    page = "".join(path.read_text() for path in (ROOT / "docs/api").glob("*.md"))
    assert set(MEANING) == set(Reason)
    assert [reason for reason in Reason if f"`{reason}`" not in page] == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_every_example_is_an_object_of_a_kind(path: Path) -> None:
    body = yaml.safe_load(path.read_text())
    kinds: dict[str, type[ImageBuild | BuildCachePrune]]
    kinds = {"ImageBuild": ImageBuild, "BuildCachePrune": BuildCachePrune}
    assert kinds[body["kind"]].parse(body).metadata.name == body["metadata"]["name"]


def test_operator_is_no_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
