"""The command line: run the operator, print the CRDs, or build once without a cluster."""

import click

from imagewright import __version__
from imagewright.cli.build import build
from imagewright.cli.crds import crds
from imagewright.cli.run import run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """imagewright: container image builds as a Kubernetes resource."""


for command in (run, crds, build):
    main.add_command(command)
