"""The real components on loopback, for the demo, the tests and the benchmark."""

from devstack.engines import Engine
from devstack.registries import PASSWORD, USERNAME
from devstack.stack import Stack, down, up

__all__ = ["PASSWORD", "USERNAME", "Engine", "Stack", "down", "up"]
