"""Which promised rows have tests, and whether these pass: tests/rows.toml, as pytest sees it.

A plugin (`pytest_plugins = ["tests.support.rows"]`). A test proves a row by carrying its id, as in
`@pytest.mark.row("seed-11")`; an id that rows.toml does not list ends the collection. At the end
of a session the outcome of every marked test is written to a file, which tests/matrix.py reads.
"""

import json
import os
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CATALOGUE = Path(__file__).resolve().parents[1] / "rows.toml"
SEVERITY = ("passed", "skipped", "failed")
"""Outcomes, each worse than the one before: a test is what its worst phase was."""

ROW = "row"
"""The property of a report that names a row."""
UNREACHED = "unreached"
"""The table of rows.toml that is no family, but says which rows the operator never comes to."""
Catalogue = dict[str, dict[str, str]]
"""Family to row id to title."""
Rows = dict[str, dict[str, str]]
"""Row id to test id to outcome."""


@dataclass(frozen=True, slots=True)
class Results:
    """What the sessions of one checkout found out."""

    root: str
    """The checkout."""
    whole: float
    """When its last session over all tests began, in seconds since 1970; 0 where none did."""
    rows: Rows


@dataclass(slots=True)
class Session:
    """What one session has seen so far."""

    marked: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Test id to the row ids that it carries."""
    outcomes: dict[str, str] = field(default_factory=dict)
    partial: bool = False


def parse_catalogue(text: str) -> Catalogue:
    """The families of rows.toml. Raises ValueError where one id stands in two of them."""
    found: Catalogue = tomllib.loads(text)
    found.pop(UNREACHED, None)
    seen: dict[str, str] = {}
    for family, rows in found.items():
        for row in rows:
            if row in seen:
                raise ValueError(f"Row {row} stands both in {seen[row]} and in {family}.")
            seen[row] = family
    return found


def unreached(text: str) -> dict[str, str]:
    """Rows that nobody can come to by way of the operator, each with a sentence that says why."""
    found: Catalogue = tomllib.loads(text)
    return found.get(UNREACHED, {})


def unlisted(marked: Mapping[str, Iterable[str]], catalogue: Catalogue) -> str:
    """A sentence on the tests that carry ids nobody knows; empty where there are none."""
    known = {row for rows in catalogue.values() for row in rows}
    strange = {
        f"{test} carries {row!r}"
        for test, rows in marked.items()
        for row in rows
        if row not in known
    }
    if not strange:
        return ""
    return f"tests/rows.toml lists no such row: {'; '.join(sorted(strange))}."


def worse(one: str, other: str) -> str:
    """The worse of two outcomes."""
    return max(one, other, key=SEVERITY.index)


def combine(previous: Results | None, session: Session, root: str, began: float) -> Results:
    """What is known after a session.

    A session over all tests stands alone. One over some tests replaces what was known of these,
    and does not make the rest any newer.
    """
    rows: Rows = {}
    if session.partial and previous is not None:
        rows = {
            row: {test: old for test, old in tests.items() if test not in session.outcomes}
            for row, tests in previous.rows.items()
        }
    for test, outcome in session.outcomes.items():
        for row in session.marked.get(test, ()):
            rows.setdefault(row, {})[test] = outcome
    whole = began if not session.partial else previous.whole if previous else 0.0
    return Results(root, whole, {row: tests for row, tests in sorted(rows.items()) if tests})


def encode(results: Results) -> str:
    """The results as the file has them: for each row, its tests and whether all of them passed."""
    rows = {
        row: {"passed": passed(tests), "tests": dict(sorted(tests.items()))}
        for row, tests in results.rows.items()
    }
    return (
        json.dumps({"root": results.root, "whole": results.whole, "rows": rows}, indent=1) + "\n"
    )


def decode(text: str, root: str) -> Results | None:
    """The results in a file's text; None where it holds none, or those of another checkout."""
    try:
        found = json.loads(text)
        rows = {str(row): dict(entry["tests"]) for row, entry in found["rows"].items()}
        results = Results(str(found["root"]), float(found["whole"]), rows)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return results if results.root == root else None


def passed(tests: Mapping[str, str]) -> bool:
    """Whether a row's tests prove it: there is one, and all of them passed."""
    return bool(tests) and set(tests.values()) == {"passed"}


def results_path(environ: Mapping[str, str]) -> Path:
    """Where the results are kept."""
    cache = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "imagewright" / "rows.json"


def read_results(path: Path, root: str) -> Results | None:
    """What is known; None where there is no file, or none of this checkout."""
    try:
        return decode(path.read_text(), root)
    except OSError:
        return None


def write_results(path: Path, results: Results) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(encode(results))
    beside.replace(path)


class RowPlugin:
    """The hooks of one session."""

    def __init__(self, catalogue: Catalogue, path: Path) -> None:
        self._catalogue = catalogue
        self._path = path
        self._began = time.time()
        self.session = Session()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Learn which test carries which rows, before others deselect any."""
        marked = {item.nodeid: rows for item in items if (rows := tuple(rows_of(item)))}
        if complaint := unlisted(marked, self._catalogue):
            raise pytest.UsageError(complaint)
        for item in items:
            # They travel with the reports, which may come from another process.
            item.user_properties += [(ROW, row) for row in marked.get(item.nodeid, ())]

    def pytest_deselected(self) -> None:
        """A session with tests left out is not over all of them."""
        self.session.partial = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how each phase of a marked test ended."""
        rows = tuple(str(value) for name, value in report.user_properties if name == ROW)
        if rows:
            self.session.marked[report.nodeid] = rows
            before = self.session.outcomes.get(report.nodeid, "passed")
            self.session.outcomes[report.nodeid] = worse(before, report.outcome)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write what was found out."""
        config = session.config
        ended = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        # A process that runs a part of the tests reports to the one that was asked for all.
        if config.getoption("collectonly") or hasattr(config, "workerinput"):
            return
        cut = bool(session.shouldstop or session.shouldfail) or exitstatus not in ended
        self.session.partial |= cut or not asks_for_all(config)
        root = str(config.rootpath)
        previous = read_results(self._path, root)
        write_results(self._path, combine(previous, self.session, root, self._began))


def rows_of(item: pytest.Item) -> Iterator[str]:
    """The row ids that a test carries."""
    for mark in item.iter_markers("row"):
        yield from (str(row) for row in mark.args or ("",))


def asks_for_all(config: pytest.Config) -> bool:
    """Whether the session was asked for every test there is."""
    if config.getoption("keyword") or config.getoption("markexpr"):
        return False
    asked = {(config.invocation_params.dir / arg).resolve() for arg in config.args}
    every: Any = config.getini("testpaths")
    return asked == {(config.rootpath / path).resolve() for path in every}


def pytest_configure(config: pytest.Config) -> None:
    """Begin to listen."""
    catalogue = parse_catalogue(CATALOGUE.read_text())
    config.pluginmanager.register(
        RowPlugin(catalogue, results_path(os.environ)), "rows-of-session"
    )
