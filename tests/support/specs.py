"""Specs that many tests ask for."""

import itertools
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import devstack

HELLO = {"Dockerfile": "FROM scratch\nCOPY hello.txt /\n", "hello.txt": "hello\n"}


def numbers(family: int) -> Iterator[int]:
    """A hundred numbers of a module's own that begin with `family`, of three digits.

    A step is found on the machine by how long it sleeps: another run beside this one has others.
    """
    return itertools.count(family * 10**6 + secrets.randbelow(10**4) * 100 + 1)


def inline(files: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """A spec of inline files."""
    return {"source": {"inline": {"files": files}}, **more}


def sleeping(stack: devstack.Stack, seconds: str) -> dict[str, Any]:
    """A spec whose one step sleeps."""
    text = f"FROM {stack.base_image}\nRUN sleep {seconds}\n"
    return inline({"Dockerfile": text}, cache={"noCache": True})
