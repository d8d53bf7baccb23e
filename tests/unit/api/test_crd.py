"""The CustomResourceDefinition as kubectl and the API server read it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from imagewright.api.condition import Type
from imagewright.api.crd import (
    BUILD_CACHE_PRUNE,
    COLUMNS,
    IMAGE_BUILD,
    KINDS,
    Column,
    Kind,
    crd_of,
    structural,
)
from imagewright.api.reason import MEANING, Reason
from imagewright.api.rule import Model
from imagewright.cli import main

ROOT = Path(__file__).parents[3]
CRD = crd_of(IMAGE_BUILD)
(VERSION,) = CRD["spec"]["versions"]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]


@pytest.mark.parametrize("folder", ["crds", "charts/imagewright/files/crds"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_printed_is_what_is_checked_in(folder: str, kind: Kind) -> None:
    printed = CliRunner().invoke(main, ["crds", "--kind", kind.plural])
    assert printed.exit_code == 0
    assert printed.output == (ROOT / folder / f"imagewright.dev_{kind.plural}.yaml").read_text()


IN_SCHEMA = [
    (kind, column)
    for kind in KINDS
    for column in kind.columns
    if not column[2].startswith(".metadata.")
]


@pytest.mark.parametrize(
    ("kind", "column"), IN_SCHEMA, ids=[f"{kind.name}: {column[0]}" for kind, column in IN_SCHEMA]
)
def test_a_column_shows_a_field_that_there_is(kind: Kind, column: Column) -> None:
    _, shown_as, path, _ = column
    node: Any = crd_of(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in re.findall(r"\.(\w+)|\[([^\]]*)\]", re.sub(r"\?\(.*?\)", "", path)):
        node = node["properties"][part[0]] if part[0] else node["items"]
    expected = "date" if node.get("format") == "date-time" else node["type"]
    assert shown_as == expected


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


def test_prunes_are_in_no_namespace() -> None:
    spec = crd_of(BUILD_CACHE_PRUNE)["spec"]
    assert spec["scope"] == "Cluster"
    assert spec["names"]["shortNames"] == ["bcp"]
    assert spec["names"]["categories"] == ["builds"]


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
