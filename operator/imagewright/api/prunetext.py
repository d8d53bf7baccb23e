"""The texts of a BuildCachePrune: their grammar, and the sentence for each mistake."""

from typing import Annotated

from pydantic import Field

from imagewright.api.rule import Rule
from imagewright.api.text import matches

_DURATION = r"^(?:[0-9]{1,5}(?:\.[0-9]{1,3})?(?:h|m|s))+$"
_ZONE = r"^[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*$"
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DAYS = "sun|mon|tue|wed|thu|fri|sat"


def _column(number: str) -> str:
    """The grammar of one of a schedule's five columns, where `number` is that of one value."""
    one = rf"(?:\*|{number}(?:-{number})?)(?:/[1-9][0-9]?)?"
    return rf"{one}(?:,{one})*"


_COLUMNS = (
    _column("[0-5]?[0-9]"),
    _column("(?:[01]?[0-9]|2[0-3])"),
    _column("(?:0?[1-9]|[12][0-9]|3[01])"),
    _column(f"(?:0?[1-9]|1[0-2]|(?i:{_MONTHS}))"),
    _column(f"(?:[0-7]|(?i:{_DAYS}))"),
)
_NAMED = "@(?:hourly|daily|midnight|weekly|monthly|yearly|annually)"
_SCHEDULE = f"^(?:{' +'.join(_COLUMNS)}|{_NAMED})$"

Duration = Annotated[
    str,
    Field(min_length=1, max_length=32),
    matches(_DURATION, "This is no duration: write hours, minutes and seconds, such as 48h."),
]
Schedule = Annotated[
    str,
    Field(min_length=1, max_length=128),
    matches(
        _SCHEDULE,
        "This is no schedule: write minute, hour, day of month, month and day of week, such as "
        "'0 3 * * *', or @daily.",
    ),
]
TimeZone = Annotated[
    str,
    Field(min_length=1, max_length=64),
    matches(_ZONE, "This is no time zone: write its name, such as Europe/Berlin or UTC."),
    # The API server knows all zones, and its clock functions fail for any other name. Here, where
    # nothing may be read, the name's form must do: the operator looks it up before it uses it.
    Rule(
        "self != 'Local' && timestamp('2026-01-01T00:00:00Z').getHours(self) >= 0",
        lambda zone: zone != "Local",
        "This is no time zone that is known: write its name, such as Europe/Berlin or UTC.",
    ),
]
WorkerName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    matches(r"^[^\s]+$", "A worker's name is one word, as status.targets shows it."),
]
RecordId = Annotated[
    str,
    Field(min_length=1, max_length=64),
    matches(
        r"^\^?[a-z0-9]+\$?$",
        "An id is a part of a record's id, in lower-case letters and digits; '^' before it pins "
        "its beginning, '$' after it its end.",
    ),
]
Description = Annotated[
    str,
    Field(min_length=1, max_length=1024),
    matches(r"^[^\x00-\x1f\x7f]+$", "A description is one line, as the daemon lists it."),
]
