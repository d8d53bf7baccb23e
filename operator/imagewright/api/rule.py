"""One rule, two judges: the API server refuses by CEL what the command line refuses by Python.

A rule says its sentence once. In a schema it becomes `x-kubernetes-validations`, so that a bad
object is refused at `kubectl apply`; in pydantic it becomes a validator, so that `imagewright
build`, which has no API server, says the same. A test holds the two against one another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must satisfy: in CEL (`self` is the value), in Python, and as a sentence.

    Put it into `Annotated[...]` for a field, or into `rules` of a Model for several fields at
    once.
    """

    cel: str
    check: Callable[[Any], bool]
    message: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.enforce, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = handler(schema)
        found.setdefault(VALIDATIONS, []).append(self.cel_rule())
        return found

    def enforce(self, value: Any) -> Any:
        """The value itself, or a validation error with the rule's sentence."""
        if not self.check(value):
            raise PydanticCustomError("rule", "{sentence}", {"sentence": self.message})
        return value

    def cel_rule(self) -> dict[str, str]:
        """The rule as the API server wants it."""
        return {"rule": self.cel, "message": self.message}


class Model(BaseModel):
    """A part of a kind: camelCase outside, immutable inside, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    def model_post_init(self, _context: Any, /) -> None:
        """Enforce the rules over several fields."""
        for rule in self.rules:
            rule.enforce(self)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = handler.resolve_ref_schema(handler(schema))
        if cls.rules:
            found[VALIDATIONS] = [rule.cel_rule() for rule in cls.rules]
        return found

    def dump(self) -> dict[str, Any]:
        """The value as JSON has it, with what is unset left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def list_type(kind: str, *keys: str) -> Mapping[str, Any]:
    """Schema extras that tell server-side apply how to merge a list: by keys, or as a set."""
    extra: dict[str, Any] = {"x-kubernetes-list-type": kind}
    if keys:
        extra["x-kubernetes-list-map-keys"] = list(keys)
    return extra
