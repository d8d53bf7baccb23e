"""Where something happens to the operator: at which of its writes or calls, and on which side."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Strike:
    """`act` is called at the write or call of that number, counted from 1.

    `before`: it has not left the proxy, and never does. Else the server has answered it, and the
    answer never arrives. `act` returns when the operator is dead. Where a `name` is given, only
    calls of that name count.
    """

    number: int
    before: bool
    act: Callable[[], None]
    name: str = ""
