"""Ignore files, as moby/patternmatcher reads them; what is expected was compared with it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.clients.buildkit.globs import PatternError, match_name
from imagewright.clients.buildkit.patterns import Patterns, clean, parse_ignore_file


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        pytest.param("", [], id="an empty file ignores nothing"),
        pytest.param("\ufeff# x\n\n  \na\r\n", ["a"], id="comments, blanks, BOM, CR are left out"),
        pytest.param(" # x", ["# x"], id="a comment begins in the first column"),
        pytest.param("/a\n!/b\n! /c", ["a", "!b", "!c"], id="a leading slash means nothing"),
        pytest.param("a//b/./../c/", ["a/c"], id="a path is cleaned"),
        pytest.param("/", ["/"], id="the root itself stays"),
        pytest.param(" a b \t", ["a b"], id="spaces inside stay"),
        pytest.param("!", ["!"], id="a lone exclamation mark stays, to be refused later"),
        pytest.param("!!a", ["!!a"], id="only one exclamation mark is special"),
    ],
)
def test_an_ignore_file_is_read(text: str, patterns: list[str]) -> None:
    assert parse_ignore_file(text) == patterns


@pytest.mark.parametrize(
    ("lines", "path", "excluded"),
    [
        pytest.param([], "a", False, id="no pattern excludes nothing"),
        pytest.param(["", " "], "a", False, id="blank lines are no patterns"),
        pytest.param(["a"], "a", True, id="a name is itself"),
        pytest.param(["a"], "a/b/c", True, id="and all below it"),
        pytest.param(["a"], "b/a", False, id="but only at the root"),
        pytest.param(["a"], "ab", False, id="and not a longer name"),
        pytest.param(["a/b"], "a", False, id="a parent of a match does not match"),
        pytest.param(["*.md"], "x.md", True, id="a star is any name"),
        pytest.param(["*.md"], "d/x.md", False, id="in one folder"),
        pytest.param(["*/x"], "d/x", True, id="a star is a folder"),
        pytest.param(["*/x"], "d/e/x", False, id="but one only"),
        pytest.param(["**/x"], "x", True, id="two stars are no folder"),
        pytest.param(["**/x"], "d/e/x", True, id="or many"),
        pytest.param(["**/x"], "dx", False, id="whole ones"),
        pytest.param(["**x"], "dx", True, id="except without a slash"),
        pytest.param(["a/**"], "a/b/c", True, id="two stars at the end are all below"),
        pytest.param(["a/**"], "a", False, id="without the folder itself"),
        pytest.param(["a**"], "ab/c", True, id="or all that begins so"),
        pytest.param(["a/**/b"], "a/b", True, id="two stars between are nothing"),
        pytest.param(["a/**/b"], "a/x/y/b", True, id="or something"),
        pytest.param(["a/**/b"], "a/xb", False, id="but no part of a name"),
        pytest.param(["**"], "a/b", True, id="two stars are all"),
        pytest.param(["**/*.o", "!keep/**"], "keep/x.o", False, id="an exception wins if later"),
        pytest.param(["!keep/**", "**/*.o"], "keep/x.o", True, id="and loses if earlier"),
        pytest.param(["a", "!a/b"], "a/b", False, id="an exception inside of an excluded folder"),
        pytest.param(["a", "!a/b"], "a/c", True, id="spares nothing else"),
        pytest.param(["a/b", "!a"], "a/b", True, id="an exception above does not reach below"),
        pytest.param(["*", "!*.txt"], "a.txt", False, id="all but"),
        pytest.param(["?"], "/", False, id="a question mark is no slash"),
        pytest.param(["?"], "ä", True, id="but any one character"),
        pytest.param(["[a-c]x"], "bx", True, id="a range"),
        pytest.param(["[^a]x"], "ax", False, id="a class that is not"),
        pytest.param(["a[^b]c"], "a/c", True, id="matches a slash"),
        pytest.param([r"\*"], "*", True, id="a backslash takes the meaning"),
        pytest.param([r"\*"], "x", False, id="and leaves the character"),
        pytest.param([r"x\d"], "x7", True, id="a letter after it is Go's regexp"),
        pytest.param(["a.b"], "axb", False, id="a dot is a dot"),
        pytest.param(["*.{a,b}"], "x.a", False, id="there are no braces"),
        pytest.param(["(a|b)*"], "(a|b)c", True, id="nor alternatives"),
        pytest.param(["^a"], "^a", True, id="a caret is itself"),
        pytest.param(["^a*"], "ab", True, id="unless a wildcard makes it an expression"),
        pytest.param(["/a"], "a", False, id="a leading slash was to be cut before"),
        pytest.param([" a "], "a", True, id="spaces around mean nothing"),
        pytest.param(["a/../b"], "b", True, id="patterns are cleaned"),
        pytest.param(["."], "a", False, id="the root is never matched"),
        pytest.param(["*"], "", False, id="nor is nothing"),
        pytest.param(["x*y*z"], "x\ny\nz", True, id="a line feed is a character"),
    ],
)
def test_the_last_pattern_that_matches_decides(
    lines: list[str], path: str, excluded: bool
) -> None:
    assert Patterns(lines).excludes(path) is excluded


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        pytest.param("!", "exclamation mark", id="an exception of nothing"),
        pytest.param("a[", "not closed", id="an open class"),
        pytest.param("[]", "not closed", id="an empty class"),
        pytest.param("[^]a]", "not closed", id="an empty class that is not"),
        pytest.param("[a-]", "not closed", id="half a range"),
        pytest.param("[-a]", "not closed", id="the other half"),
        pytest.param("[z-a]", "cannot be read", id="a range backwards"),
        pytest.param("[*]", "inside []", id="a star in a class, which means no star upstream"),
        pytest.param("[[:alpha:]]", "inside []", id="a class by name"),
        pytest.param("a\\", "its end", id="a backslash at the end"),
        pytest.param(r"a\k", "before 'k'", id="a letter that Go's regexp does not know"),
        pytest.param("a**b*c*d*e", "too complex", id="an unusual pattern with many wildcards"),
    ],
)
def test_a_bad_pattern_is_refused_in_a_sentence(pattern: str, reason: str) -> None:
    with pytest.raises(PatternError, match=r"\.$") as caught:
        Patterns([pattern])

    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        pytest.param("a*", "abc", True, id="a star"),
        pytest.param("a**", "abc", True, id="two are one"),
        pytest.param("^a", "^a", True, id="a caret is itself"),
        pytest.param(r"\d", "d", True, id="an escaped letter is itself"),
        pytest.param(r"\*", "a", False, id="an escaped star is itself"),
        pytest.param("[a", "[a", False, id="a bad pattern matches nothing"),
    ],
)
def test_a_name_is_matched_as_gos_filepath_does(pattern: str, name: str, matches: bool) -> None:
    assert match_name(pattern, name) is matches


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        pytest.param("*a" * 40 + "b", "a" * 4000, id="many stars in one name"),
        pytest.param("**/a/" * 30 + "b", "a/" * 2000 + "a", id="many double stars"),
        pytest.param("**/*a*a/" * 15 + "b", "aaa/" * 500 + "a", id="many of both"),
        pytest.param("*a/" * 40 + "b", ("a" * 50 + "/") * 40 + "a", id="a star in each folder"),
    ],
)
def test_no_usual_pattern_takes_long(pattern: str, path: str) -> None:
    match = Patterns([pattern]).match
    began = time.perf_counter()
    assert match(path, None) == (False, (False,))

    assert time.perf_counter() - began < 0.5


NAMES = st.text("ab.", min_size=1, max_size=3).filter(lambda name: name not in {".", ".."})
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PARTS = st.one_of(NAMES, st.sampled_from(["*", "**", "a*", "*b", "?", "[ab]"]))
LINES = st.lists(
    st.tuples(
        st.sampled_from(["", "!"]), st.lists(PARTS, min_size=1, max_size=3).map("/".join)
    ).map("".join),
    max_size=4,
)


@given(LINES, PATHS)
def test_a_folder_that_is_not_reached_below_hides_nothing(lines: list[str], path: str) -> None:
    patterns = Patterns(lines)
    folder, _, rest = path.rpartition("/")
    if rest and folder and patterns.excludes(folder):
        below = patterns.reach_below(folder, exceptions=True)
        assert below or patterns.excludes(path)


@given(LINES, PATHS)
def test_what_is_excluded_with_all_is_included_by_its_exception(
    lines: list[str], path: str
) -> None:
    assert Patterns([*lines, "**"]).excludes(path)
    assert not Patterns([*lines, "**", f"!{path}"]).excludes(path)


@given(st.text("a/.", max_size=12))
def test_cleaning_twice_is_cleaning_once(path: str) -> None:
    assert clean(clean(path)) == clean(path)
    assert "//" not in clean(path)
