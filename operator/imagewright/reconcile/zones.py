"""Time zones by name, read once from the machine's files or, where it has none, from tzdata."""

import asyncio
from collections.abc import Mapping
from datetime import tzinfo
from zoneinfo import ZoneInfo


class Zones:
    """The time zones that were asked for; None stands for a name that is none."""

    def __init__(self) -> None:
        self._known: dict[str, tzinfo | None] = {}

    @property
    def known(self) -> Mapping[str, tzinfo | None]:
        """Those that were learned."""
        return self._known

    async def learn(self, name: str) -> None:
        """Have `known` speak of the zone of this name."""
        if name not in self._known:
            self._known[name] = await asyncio.to_thread(_read, name)


def _read(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
