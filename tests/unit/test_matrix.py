"""The promise tables: what counts as proven, and what is said of the rest."""

from pathlib import Path
from typing import Literal

import pytest

from tests import matrix
from tests.support.rows import (
    CATALOGUE,
    Results,
    RowPlugin,
    Session,
    combine,
    decode,
    encode,
    parse_catalogue,
    passed,
    read_results,
    results_path,
    unlisted,
    worse,
    write_results,
)

FAMILIES = {
    "seed": {"seed-1": "One.", "seed-2": "Two."},
    "engine": {"T1": "Three.", "T2": "Four.", "B1": "Five."},
}


def known(rows: dict[str, dict[str, str]], whole: float = 100.0) -> Results:
    return Results("/checkout", whole, rows)


def phase(test: str, outcome: Literal["passed", "failed"], *rows: str) -> pytest.TestReport:
    told = [("row", row) for row in rows]
    where = ("t.py", 1, "a")
    return pytest.TestReport(test, where, {}, outcome, None, "call", user_properties=told)


def test_the_catalogue_holds_every_family_with_its_rows() -> None:
    found = parse_catalogue(CATALOGUE.read_text())
    counts = {family: len(rows) for family, rows in found.items()}
    assert counts == {"seed": 20, "engine": 137, "faults": 47, "malicious": 23}


def test_the_titles_are_all_different() -> None:
    titles = [
        title
        for rows in parse_catalogue(CATALOGUE.read_text()).values()
        for title in rows.values()
    ]
    assert len(set(titles)) == len(titles)


def test_an_id_that_stands_in_two_families_is_refused() -> None:
    with pytest.raises(ValueError, match="F1 stands both in one and in two"):
        parse_catalogue('[one]\nF1 = "a"\n[two]\nF1 = "b"\n')


def test_a_test_that_carries_an_unknown_row_is_named() -> None:
    complaint = unlisted({"t.py::a": ["T1", "T99"], "t.py::b": ["B1"]}, FAMILIES)
    assert complaint == "tests/rows.toml lists no such row: t.py::a carries 'T99'."


def test_known_rows_are_not_complained_of() -> None:
    assert not unlisted({"t.py::a": ["T1", "seed-2"]}, FAMILIES)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param("passed", "passed", "passed", id="all phases passed"),
        pytest.param("passed", "skipped", "skipped", id="a skip is no pass"),
        pytest.param("passed", "failed", "failed", id="teardown broke after a pass"),
        pytest.param("failed", "passed", "failed", id="a later phase mends nothing"),
    ],
)
def test_a_test_is_what_its_worst_phase_was(one: str, other: str, expected: str) -> None:
    assert worse(one, other) == expected


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        pytest.param({}, False, id="no test proves nothing"),
        pytest.param({"a": "passed", "b": "passed"}, True, id="all pass"),
        pytest.param({"a": "passed", "b": "failed"}, False, id="one fails"),
        pytest.param({"a": "skipped"}, False, id="a skipped test proves nothing"),
    ],
)
def test_a_row_is_proven_by_all_of_its_tests(tests: dict[str, str], *, expected: bool) -> None:
    assert passed(tests) is expected


def test_a_session_over_all_tests_stands_alone() -> None:
    before = known({"T1": {"gone.py::a": "passed"}})
    session = Session({"t.py::b": ("T2", "B1")}, {"t.py::b": "passed"})
    after = combine(before, session, "/checkout", 200.0)
    assert after == known({"B1": {"t.py::b": "passed"}, "T2": {"t.py::b": "passed"}}, 200.0)


def test_a_session_over_some_tests_replaces_what_was_known_of_these() -> None:
    before = known({"T1": {"t.py::a": "passed", "t.py::b": "passed"}, "B1": {"t.py::c": "failed"}})
    session = Session({"t.py::a": ("T2",)}, {"t.py::a": "failed"}, partial=True)
    after = combine(before, session, "/checkout", 200.0)
    assert after.rows == {
        "B1": {"t.py::c": "failed"},
        "T1": {"t.py::b": "passed"},
        "T2": {"t.py::a": "failed"},
    }
    assert after.whole == before.whole


def test_the_first_session_over_some_tests_is_no_session_over_all() -> None:
    session = Session({"t.py::a": ("T1",)}, {"t.py::a": "passed"}, partial=True)
    after = combine(None, session, "/checkout", 200.0)
    assert after.rows
    assert not after.whole


def test_results_survive_the_file() -> None:
    results = known({"T1": {"t.py::a": "passed", "t.py::b": "failed"}})
    assert decode(encode(results), "/checkout") == results


def test_the_file_says_whether_all_tests_of_a_row_passed() -> None:
    assert '"passed": false' in encode(known({"T1": {"a": "passed", "b": "failed"}}))
    assert '"passed": true' in encode(known({"T1": {"a": "passed"}}))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(encode(Results("/elsewhere", 1.0, {})), id="of another checkout"),
        pytest.param("{", id="cut off"),
        pytest.param("[]", id="of another shape"),
        pytest.param(
            '{"root": "/checkout", "whole": 1, "rows": {"T1": 3}}', id="rows are numbers"
        ),
    ],
)
def test_other_files_hold_no_results(text: str) -> None:
    assert decode(text, "/checkout") is None


def test_results_are_written_and_read_back(tmp_path: Path) -> None:
    path = results_path({"XDG_CACHE_HOME": str(tmp_path)})
    results = known({"T1": {"t.py::a": "passed"}})
    assert read_results(path, "/checkout") is None
    write_results(path, results)
    assert read_results(path, "/checkout") == results
    assert [one.name for one in path.parent.iterdir()] == ["rows.json"]


def test_the_plugin_remembers_the_worst_phase_of_marked_tests_only(tmp_path: Path) -> None:
    plugin = RowPlugin(FAMILIES, tmp_path / "rows.json")
    plugin.pytest_runtest_logreport(phase("t.py::a", "passed", "T1"))
    plugin.pytest_runtest_logreport(phase("t.py::a", "failed", "T1"))
    plugin.pytest_runtest_logreport(phase("t.py::b", "passed"))
    assert plugin.session.outcomes == {"t.py::a": "failed"}
    assert plugin.session.marked == {"t.py::a": ("T1",)}


def test_a_session_with_tests_left_out_is_not_over_all(tmp_path: Path) -> None:
    plugin = RowPlugin(FAMILIES, tmp_path / "rows.json")
    assert not plugin.session.partial
    plugin.pytest_deselected()
    assert plugin.session.partial


def test_a_family_of_several_letters_is_shown_letter_by_letter() -> None:
    names = [one.name for one in matrix.by_letter("engine", FAMILIES["engine"], known({}))]
    assert names == ["engine T", "engine B"]


def test_a_family_of_one_letter_is_shown_as_a_whole() -> None:
    names = [one.name for one in matrix.by_letter("seed", FAMILIES["seed"], known({}))]
    assert names == ["seed"]


def test_the_report_counts_names_gaps_and_ends_with_the_summary() -> None:
    results = known(
        {"seed-1": {"t.py::a": "passed"}, "T1": {"t.py::a": "passed", "t.py::b": "failed"}}
    )
    lines = matrix.report(FAMILIES, results).splitlines()
    assert lines[:4] == [
        "family        rows  covered  passed",
        "seed             2        1       1",
        "engine T         2        1       0",
        "engine B         1        0       0",
    ]
    assert "seed without a test: seed-2" in lines
    assert "T1 is not proven: t.py::b failed" in lines
    assert lines[-1] == "matrix: seed=1/2 engine=0/3"


def test_titles_are_given_for_open_rows_only() -> None:
    results = known({"seed-1": {"t.py::a": "passed"}})
    text = matrix.report(FAMILIES, results, with_titles=True)
    assert "One." not in text
    assert "seed-2   Two." in text


def test_the_summary_of_no_results_has_the_promised_form() -> None:
    catalogue = parse_catalogue(CATALOGUE.read_text())
    expected = "matrix: seed=0/20 engine=0/137 faults=0/47 malicious=0/23"
    assert matrix.summary(catalogue, known({})) == expected


@pytest.mark.parametrize(
    ("results", "newest", "says"),
    [
        pytest.param(None, 1.0, "No session", id="no file"),
        pytest.param(known({}, whole=0.0), 1.0, "No session", id="only sessions over some tests"),
        pytest.param(known({}, whole=5.0), 9.0, "newer", id="a test was edited since"),
        pytest.param(known({}, whole=9.0), 5.0, "", id="up to date"),
    ],
)
def test_old_results_are_not_used(results: Results | None, newest: float, says: str) -> None:
    stale = matrix.staleness(results, newest)
    assert stale.startswith(says) or says in stale
    assert bool(stale) is bool(says)


def test_the_newest_test_file_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "unit"
    folder.mkdir(parents=True)
    (folder / "test_a.py").touch()
    (folder / "notes.txt").touch()
    assert matrix.newest_test(tmp_path) == (folder / "test_a.py").stat().st_mtime


def test_without_results_and_without_a_run_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert matrix.main(["--no-run"]) == 1
    assert capsys.readouterr().out == "No session over all tests has left results here.\n"


def test_old_results_are_shown_with_a_warning_where_a_run_is_forbidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old = Results(str(matrix.ROOT), 1.0, {"seed-1": {"t.py::a": "passed"}})
    write_results(results_path({"XDG_CACHE_HOME": str(tmp_path)}), old)
    assert matrix.main(["--no-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A test file is newer than the last session over all tests."
    assert lines[-1] == "matrix: seed=1/20 engine=0/137 faults=0/47 malicious=0/23"
