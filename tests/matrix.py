"""The promise tables: which rows of tests/rows.toml have a passing test. `python -m tests.matrix`.

Runs nothing itself where the last session over all tests is newer than every test file; otherwise
it says so and runs the suite first.
"""

import argparse
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.rows import (
    CATALOGUE,
    Catalogue,
    Results,
    parse_catalogue,
    passed,
    read_results,
    results_path,
    unreached,
)

ROOT = CATALOGUE.parents[1]
WIDTH = 99


@dataclass(frozen=True, slots=True)
class Tally:
    """One family, or one letter of it: its rows, and what is known of each."""

    name: str
    rows: tuple[str, ...]
    tested: frozenset[str]
    proven: frozenset[str]

    @property
    def missing(self) -> tuple[str, ...]:
        """Rows that no test carries."""
        return tuple(row for row in self.rows if row not in self.tested)

    @property
    def broken(self) -> tuple[str, ...]:
        """Rows with tests that do not all pass."""
        return tuple(row for row in self.rows if row in self.tested - self.proven)


def tally(name: str, rows: Iterable[str], results: Results) -> Tally:
    """What is known of some rows."""
    known = tuple(rows)
    tested = frozenset(row for row in known if results.rows.get(row))
    proven = frozenset(row for row in tested if passed(results.rows[row]))
    return Tally(name, known, tested, proven)


def by_letter(family: str, rows: Iterable[str], results: Results) -> list[Tally]:
    """A family that has rows of several letters, letter by letter; any other as it is."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row.rstrip("0123456789").rstrip("-"), []).append(row)
    if len(groups) == 1:
        return [tally(family, rows, results)]
    return [tally(f"{family} {letter}", part, results) for letter, part in groups.items()]


def table(tallies: Iterable[Tally]) -> Iterator[str]:
    """The table's lines."""
    yield f"{'family':<12}{'rows':>6}{'covered':>9}{'passed':>8}"
    for one in tallies:
        yield f"{one.name:<12}{len(one.rows):>6}{len(one.tested):>9}{len(one.proven):>8}"


def gaps(one: Tally, results: Results) -> Iterator[str]:
    """What a family lacks: rows with tests that do not pass, and rows without a test."""
    for row in one.broken:
        bad = (f"{test} {how}" for test, how in results.rows[row].items() if how != "passed")
        yield f"{row} is not proven: {'; '.join(bad)}"
    if one.missing:
        yield from textwrap.wrap(
            f"{one.name} without a test: {' '.join(one.missing)}", WIDTH, subsequent_indent="    "
        )


def beyond(results: Results) -> Iterator[str]:
    """Rows that the operator never comes to; some of them are proven for its clients."""
    known = unreached(CATALOGUE.read_text())
    proven = sum(passed(results.rows.get(row, {})) for row in known)
    yield ""
    yield f"Never reached through the operator: {len(known)} rows, {proven} proven for its clients"
    for row, why in known.items():
        yield f"{row:<8} {why}"


def titles(catalogue: Catalogue, results: Results) -> Iterator[str]:
    """Every row that is not proven, with its title."""
    for rows in catalogue.values():
        for row, title in rows.items():
            if not passed(results.rows.get(row, {})):
                yield f"{row:<8} {title}"


def summary(catalogue: Catalogue, results: Results) -> str:
    """The last line."""
    counts = (tally(family, rows, results) for family, rows in catalogue.items())
    return "matrix: " + " ".join(f"{one.name}={len(one.proven)}/{len(one.rows)}" for one in counts)


def report(catalogue: Catalogue, results: Results, *, with_titles: bool = False) -> str:
    """All that is printed."""
    tallies = [
        one for family, rows in catalogue.items() for one in by_letter(family, rows, results)
    ]
    lines = [*table(tallies), ""]
    for one in tallies:
        lines.extend(gaps(one, results))
    lines.extend(beyond(results))
    if with_titles:
        lines.extend(["", *titles(catalogue, results)])
    return "\n".join([*lines, "", summary(catalogue, results)]) + "\n"


def staleness(results: Results | None, newest: float) -> str:
    """Why the results cannot be used; empty where they can."""
    if results is None or not results.whole:
        return "No session over all tests has left results here."
    if results.whole < newest:
        return "A test file is newer than the last session over all tests."
    return ""


def newest_test(root: Path) -> float:
    """When a file of the tests was last written, in seconds since 1970."""
    files = (path for path in (root / "tests").rglob("*") if path.suffix in {".py", ".toml"})
    return max((path.stat().st_mtime for path in files), default=0.0)


def main(argv: list[str] | None = None) -> int:
    """Print the tables; the exit code is 1 where there are no results to print."""
    options = _parser().parse_args(argv)
    path = results_path(os.environ)
    results = read_results(path, str(ROOT))
    stale = staleness(results, newest_test(ROOT))
    if options.run or (stale and options.run is None):
        sys.stdout.write(f"{stale or 'As asked for:'} Running the tests first.\n")
        sys.stdout.flush()
        subprocess.run([sys.executable, "-m", "pytest"], cwd=ROOT, check=False)
        results = read_results(path, str(ROOT))
        stale = staleness(results, newest_test(ROOT))
    if stale:
        sys.stdout.write(f"{stale}\n")
    if results is None:
        return 1
    catalogue = parse_catalogue(CATALOGUE.read_text())
    sys.stdout.write(report(catalogue, results, with_titles=options.titles))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument(
        "--run",
        action=argparse.BooleanOptionalAction,
        help="run the tests first, or never; only where results are missing or old by default",
    )
    parser.add_argument(
        "--titles", action="store_true", help="also print what each open row promises"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
