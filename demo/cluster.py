"""The demo's namespace, and kubectl in it."""

import devstack
from devstack.kubectl import kubectl as as_admin

NAMESPACE = "demo"


def make_namespace(stack: devstack.Stack) -> None:
    """The demo's namespace."""
    as_admin(stack, "create", "namespace", NAMESPACE)


def kubectl(stack: devstack.Stack, *arguments: str, text: str = "") -> str:
    """What kubectl prints."""
    return as_admin(stack, f"--namespace={NAMESPACE}", *arguments, text=text)
