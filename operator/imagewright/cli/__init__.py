"""The command line: run the operator, print the CRDs, or build once without a cluster."""

import gc
import importlib

import click

from imagewright import __version__

COMMANDS = ("run", "crds", "build")


class OnDemand(click.Group):
    """Imports a command only when it is asked for: an operator that starts is waited for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """In the order in which they are told."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        # Modules make no garbage: to look for it meanwhile takes a twentieth of the time.
        gc.disable()
        module = importlib.import_module(f"{__name__}.{cmd_name}")
        gc.freeze()
        gc.enable()
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=OnDemand, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """imagewright: container image builds as a Kubernetes resource."""
