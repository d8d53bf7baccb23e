"""The CustomResourceDefinitions, generated from the pydantic models.

A structural schema is OpenAPI v3 without references, unions or nulls; what pydantic writes that
way is resolved here, and anything that would not survive is an error at generation, not at
`kubectl apply`.
"""

from dataclasses import dataclass
from typing import Any

from imagewright.api.buildcacheprune import BuildCachePruneSpec, BuildCachePruneStatus
from imagewright.api.buildstatus import ImageBuildStatus
from imagewright.api.imagebuild import GROUP, KIND, PLURAL, VERSION, ImageBuildSpec
from imagewright.api.rule import Model

DROPPED = ("title", "$defs")
SUCCEEDED = '.status.conditions[?(@.type=="Succeeded")]'
Column = tuple[str, str, str, int]
"""A column of `kubectl get`: its name, type, JSON path, and priority (1: only when wide)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a CustomResourceDefinition says beside its schemas."""

    name: str
    plural: str
    short: str
    scope: str
    description: str
    columns: tuple[Column, ...]
    spec: type[Model]
    status: type[Model]


COLUMNS: tuple[Column, ...] = (
    ("Status", "string", ".status.phase", 0),
    ("Reason", "string", f"{SUCCEEDED}.reason", 0),
    ("Image", "string", ".spec.images[0]", 0),
    ("Progress", "integer", ".status.progress.percent", 0),
    ("Queue", "integer", ".status.queue.position", 0),
    ("Started", "date", ".status.startTime", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Digest", "string", ".status.imageDigest", 1),
    ("Worker", "string", ".status.claim.worker", 1),
    ("Attempt", "integer", ".status.attempt", 1),
)
IMAGE_BUILD = Kind(
    name=KIND,
    plural=PLURAL,
    short="ib",
    scope="Namespaced",
    description="One image build, from source to pushed names.",
    columns=COLUMNS,
    spec=ImageBuildSpec,
    status=ImageBuildStatus,
)
BUILD_CACHE_PRUNE = Kind(
    name="BuildCachePrune",
    plural="buildcacheprunes",
    short="bcp",
    scope="Cluster",
    description="What the workers and the source cache hold, freed once or by a schedule.",
    columns=(
        ("Status", "string", ".status.phase", 0),
        ("Reason", "string", f"{SUCCEEDED}.reason", 0),
        ("Reclaimed", "integer", ".status.reclaimedBytes", 0),
        ("Deleted", "integer", ".status.cachesDeleted", 0),
        ("Schedule", "string", ".spec.schedule", 0),
        ("Started", "date", ".status.startTime", 0),
        ("Age", "date", ".metadata.creationTimestamp", 0),
        ("DryRun", "boolean", ".spec.dryRun", 1),
        ("Message", "string", f"{SUCCEEDED}.message", 1),
    ),
    spec=BuildCachePruneSpec,
    status=BuildCachePruneStatus,
)
KINDS = (IMAGE_BUILD, BUILD_CACHE_PRUNE)


def crd_of(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind, ready to be applied."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": kind.scope,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["builds"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": _root(kind)},
                }
            ],
        },
    }


def structural(model: type[Model]) -> dict[str, Any]:
    """The model's schema as the API server takes it. Raises ValueError where it would not."""
    schema = model.model_json_schema(by_alias=True)
    return _resolved(schema, schema.get("$defs", {}))


def _root(kind: Kind) -> dict[str, Any]:
    status = structural(kind.status)
    # Without it kstatus calls an object that nobody has looked at yet Current, and GitOps tools
    # would go on before it began.
    status["default"] = {"observedGeneration": -1}
    return {
        "type": "object",
        "description": kind.description,
        "required": ["spec"],
        "properties": {"spec": structural(kind.spec), "status": status},
    }


def _column(name: str, kind: str, path: str, priority: int) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    return {**column, "priority": priority} if priority else column


def _resolved(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    if "anyOf" in node:
        node = _without_null(node)
    found = {key: value for key, value in node.items() if key not in DROPPED}
    _plain(found)
    if isinstance(found.get("properties"), dict):
        found["properties"] = {
            name: _resolved(part, definitions) for name, part in found["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _resolved(found[key], definitions)
    if "$ref" in found:
        return _resolved(found, definitions)
    if "type" not in found:
        raise ValueError(f"{found} has no type: a structural schema needs one everywhere.")
    return found


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    """An optional field is one that may be left out; there are no nulls in the API."""
    (real,) = [part for part in node["anyOf"] if part.get("type") != "null"]
    return {**real, **{key: value for key, value in node.items() if key != "anyOf"}}


def _plain(node: dict[str, Any]) -> None:
    """Drop what pydantic says and OpenAPI v3 has no word for, or says by itself."""
    if node.get("additionalProperties") is False:
        del node["additionalProperties"]  # Unknown fields are pruned: the schema is closed anyway.
    if node.get("default", ...) is None:
        del node["default"]
    elif isinstance(node.get("default"), dict):
        node["default"] = {key: part for key, part in node["default"].items() if part is not None}
    for here, there in (("maxLength", "maxProperties"), ("minLength", "minProperties")):
        if node.get("type") == "object" and here in node:
            node[there] = node.pop(here)
    if node.get("type") == "integer":
        node.setdefault("format", "int64")
