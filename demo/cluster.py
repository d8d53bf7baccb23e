"""The demo's namespace, and kubectl in it."""

import subprocess

import devstack

NAMESPACE = "demo"


def make_namespace(stack: devstack.Stack) -> None:
    """The demo's namespace."""
    kubectl(stack, "create", "namespace", NAMESPACE)


def kubectl(stack: devstack.Stack, *arguments: str, text: str = "") -> str:
    """What kubectl prints."""
    command = [str(stack.binaries["kubectl"]), f"--kubeconfig={stack.kubeconfig}"]
    return subprocess.run(
        [*command, f"--namespace={NAMESPACE}", *arguments],
        input=text,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
