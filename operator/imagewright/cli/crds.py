"""imagewright crds: the CustomResourceDefinitions as YAML."""

import click
import yaml

from imagewright.api.crd import KINDS, Kind, crd_of

HEADER = "# Generated from operator/imagewright/api by `make generate`; do not edit.\n"


@click.command()
@click.option(
    "--kind",
    "only",
    type=click.Choice([kind.plural for kind in KINDS]),
    help="Only the definition of this kind; all of them where left out.",
)
def crds(only: str | None) -> None:
    """Print the CustomResourceDefinitions, to be applied with kubectl."""
    texts = [_text(kind) for kind in KINDS if only in (None, kind.plural)]
    click.echo("---\n".join(texts), nl=False)


def _text(kind: Kind) -> str:
    return HEADER + yaml.safe_dump(crd_of(kind), sort_keys=False, width=100, allow_unicode=True)
