"""The CustomResourceDefinition as kubectl and the API server read it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from imagewright.api.condition import Type
from imagewright.api.crd import COLUMNS, imagebuild_crd, structural
from imagewright.api.reason import MEANING, Reason
from imagewright.api.rule import Model
from imagewright.cli import main

ROOT = Path(__file__).parents[3]
NAME = "imagewright.dev_imagebuilds.yaml"
CRD = imagebuild_crd()
(VERSION,) = CRD["spec"]["versions"]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]


@pytest.mark.parametrize("folder", ["crds", "charts/imagewright/files/crds"])
def test_what_is_printed_is_what_is_checked_in(folder: str) -> None:
    printed = CliRunner().invoke(main, ["crds"])
    assert printed.exit_code == 0
    assert printed.output == (ROOT / folder / NAME).read_text()


IN_SCHEMA = [column for column in COLUMNS if not column[2].startswith(".metadata.")]


@pytest.mark.parametrize("column", IN_SCHEMA, ids=lambda column: column[0])
def test_a_column_shows_a_field_that_there_is(column: tuple[str, str, str, int]) -> None:
    _, kind, path, _ = column
    node: Any = SCHEMA
    for part in re.findall(r"\.(\w+)|\[([^\]]*)\]", re.sub(r"\?\(.*?\)", "", path)):
        node = node["properties"][part[0]] if part[0] else node["items"]
    expected = "date" if node.get("format") == "date-time" else node["type"]
    assert kind == expected


def test_the_columns_are_shown_in_their_order() -> None:
    shown = [column["name"] for column in VERSION["additionalPrinterColumns"]]
    assert shown == [name for name, *_ in COLUMNS]
    assert shown[:2] == ["Status", "Reason"]


def test_the_kind_has_a_status_of_its_own_and_short_names() -> None:
    names = CRD["spec"]["names"]
    assert CRD["metadata"]["name"] == f"{names['plural']}.{CRD['spec']['group']}"
    assert names["shortNames"] == ["ib"]
    assert VERSION["subresources"] == {"status": {}}
    assert CRD["spec"]["scope"] == "Namespaced"
    assert SCHEMA["required"] == ["spec"]


@pytest.mark.parametrize(
    ("path", "kind", "keys"),
    [
        ("spec.images", "set", None),
        ("spec.platforms", "set", None),
        ("spec.buildArgs", "map", ["name"]),
        ("status.conditions", "map", ["type"]),
        ("status.images", "atomic", None),
    ],
    ids=[
        "images are a set",
        "platforms are a set",
        "build arguments go by name",
        "conditions go by type",
        "pushed images are replaced as a whole",
    ],
)
def test_server_side_apply_knows_how_to_merge(
    path: str, kind: str, keys: list[str] | None
) -> None:
    node = SCHEMA
    for part in path.split("."):
        node = node["properties"][part]
    assert node["x-kubernetes-list-type"] == kind
    assert node.get("x-kubernetes-list-map-keys") == keys
    # A key of a map must always be there.
    assert set(keys or ()) <= set(node["items"].get("required", ()))


def test_it_is_small_enough_for_kubectl_apply() -> None:
    assert len(json.dumps(CRD)) < 256 << 10


def test_a_schema_that_would_not_survive_is_an_error_at_generation() -> None:
    class Union(Model):
        """Two types in one field."""

        either: int | str

    class Anything(Model):
        """A field of no type."""

        free: Any

    with pytest.raises(ValueError, match="values to unpack"):
        structural(Union)
    with pytest.raises(ValueError, match="has no type"):
        structural(Anything)


def test_the_types_of_conditions_are_named_in_the_schema() -> None:
    conditions = SCHEMA["properties"]["status"]["properties"]["conditions"]
    told = conditions["items"]["properties"]["type"]["description"]
    assert [kind for kind in Type if kind not in told] == []
    required = set(conditions["items"]["required"])
    assert {"type", "status", "reason", "message", "lastTransitionTime"} <= required


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_a_word_that_metav1_allows_and_a_sentence(reason: Reason) -> None:
    assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", reason)
    assert MEANING[reason].endswith(".")
