"""python -m bench [suite]: one suite of the benchmark; its last line is for programs."""

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

import devstack
from bench import gateway, hour, load, single

SUITES = {"single": single, "load": load, "gateway": gateway, "hour": hour}
"""By name: each module has `arguments` (what a user may choose) and `measure` (all figures)."""


def main() -> None:
    """Bring the servers up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    suites = parser.add_subparsers(dest="suite", required=True)
    for name, suite in SUITES.items():
        suite.arguments(suites.add_parser(name, help=(suite.__doc__ or "").strip()))
    options = parser.parse_args()
    # Two at once need two names, and disturb one another all the same.
    name = os.environ.get("DEVSTACK_NAME", "bench")
    stack = devstack.up(name)
    try:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(SUITES[options.suite].measure(stack, Path(folder), options))
    finally:
        devstack.down(name)


if __name__ == "__main__":
    main()
