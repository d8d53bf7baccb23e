"""Sizes as Kubernetes writes them."""

import re

_UNITS: dict[str, int] = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": 1024**power for power, unit in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(r"([0-9]+)([kMGTPE]|[KMGTPE]i)?")


def bytes_of(text: str) -> int:
    """The bytes that a quantity such as `64Mi` stands for. Raises ValueError."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no size: write bytes, or such as 64Mi or 10Gi.")
    return int(found[1]) * _UNITS[found[2] or ""]
