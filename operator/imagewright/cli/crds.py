"""imagewright crds: the CustomResourceDefinitions as YAML."""

import click
import yaml

from imagewright.api.crd import imagebuild_crd

HEADER = "# Generated from operator/imagewright/api by `make generate`; do not edit.\n"


@click.command()
def crds() -> None:
    """Print the CustomResourceDefinitions, to be applied with kubectl."""
    text = yaml.safe_dump(imagebuild_crd(), sort_keys=False, width=100, allow_unicode=True)
    click.echo(HEADER + text, nl=False)
