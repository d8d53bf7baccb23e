"""kubectl as a cluster admin."""

from devstack.identity import run
from devstack.stack import Stack


def kubectl(stack: Stack, *arguments: str, text: str = "") -> str:
    """What kubectl prints. Raises RuntimeError with what it said where it fails."""
    command = [str(stack.binaries["kubectl"]), f"--kubeconfig={stack.kubeconfig}"]
    return run([*command, *arguments], text).strip()
