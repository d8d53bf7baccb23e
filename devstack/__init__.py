"""The real components on loopback, for the demo, the tests and the benchmark."""

from devstack.stack import Stack, down, up

__all__ = ["Stack", "down", "up"]
