"""Specs that many tests ask for."""

from collections.abc import Mapping
from typing import Any

import devstack

HELLO = {"Dockerfile": "FROM scratch\nCOPY hello.txt /\n", "hello.txt": "hello\n"}


def inline(files: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """A spec of inline files."""
    return {"source": {"inline": {"files": files}}, **more}


def sleeping(stack: devstack.Stack, seconds: str) -> dict[str, Any]:
    """A spec whose one step sleeps."""
    text = f"FROM {stack.base_image}\nRUN sleep {seconds}\n"
    return inline({"Dockerfile": text}, cache={"noCache": True})
