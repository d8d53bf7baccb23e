"""Platforms such as linux/arm64: when two names mean the same one."""

from collections.abc import Collection, Iterable

SAME = {
    "linux/amd64/v1": "linux/amd64",
    "linux/arm64/v8": "linux/arm64",
    "linux/arm": "linux/arm/v7",
}
"""Variants that containerd drops or adds (github.com/containerd/platforms, Normalize)."""


def normal(platform: str) -> str:
    """The platform as everybody writes it."""
    return SAME.get(platform, platform)


def covers(offered: Collection[str], asked: Iterable[str]) -> bool:
    """Whether every platform that is asked for is offered."""
    known = {normal(one) for one in offered}
    return all(normal(one) in known for one in asked)
