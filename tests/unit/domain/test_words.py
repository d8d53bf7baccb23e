"""Names, digests of inputs, patches, and texts from outside."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.api.imagebuild import ImageBuildSpec
from imagewright.domain.patch import merge_patch
from imagewright.domain.plan import Git, Http, Inline
from imagewright.domain.planning import inputs_digest, make_plan
from imagewright.domain.redact import clip, printable, redact, tail
from imagewright.domain.reference import InvalidReference, parse, parse_all
from tests.support.makers import GIT, INLINE, merged


@pytest.mark.row("seed-9")
@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("app", "docker.io/library/app:latest", "app:latest"),
        ("team/app:1", "docker.io/team/app:1", "team/app:1"),
        ("docker.io/app", "docker.io/library/app:latest", "app:latest"),
        ("index.docker.io/team/app", "docker.io/team/app:latest", "team/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("r.example:5000/a/b:V1.2", "r.example:5000/a/b:V1.2", "r.example:5000/a/b:V1.2"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest", "127.0.0.1:5000/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
    ],
)
def test_a_name_is_read_as_the_engine_reads_it(text: str, full: str, familiar: str) -> None:
    reference = parse(text)
    assert str(reference) == full
    assert reference.familiar() == familiar


@pytest.mark.row("seed-9")
def test_names_keep_their_order_and_lose_their_doubles() -> None:
    names = parse_all(["b:1", "a", "docker.io/library/a:latest", "b:1"])
    assert [name.familiar() for name in names] == ["b:1", "a:latest"]


@pytest.mark.row("S9")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "App",
        "a b",
        "a,b",
        "a=b",
        "a:",
        "a:b:c",
        "-a",
        "a/",
        "/a",
        "a@sha256:" + "0" * 64,
        "a\n",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match=re.escape(repr(text)[1:-1][:4]) or "''"):
        parse(text)


def spec(**fields: Any) -> ImageBuildSpec:
    """A spec of inline files with these fields."""
    return ImageBuildSpec.model_validate({**INLINE, **fields})


SAME: dict[str, dict[str, Any]] = {
    "cancel": {"cancel": True},
    "suspend": {"suspend": True},
    "ttl": {"ttlSecondsAfterFinished": 1},
    "deadline": {"activeDeadlineSeconds": 1},
    "backoff limit": {"backoffLimit": 0},
    "a default that is written out": {"network": "default", "contextDir": ""},
}
OTHER: dict[str, dict[str, Any]] = {
    "rebuildToken": {"rebuildToken": "1"},
    "target": {"target": "x"},
    "images": {"images": ["a:1"]},
    "source": GIT,
}


@pytest.mark.parametrize("fields", SAME.values(), ids=SAME)
def test_what_decides_when_starts_no_new_run(fields: dict[str, Any]) -> None:
    assert inputs_digest(spec(**fields)) == inputs_digest(spec())


@pytest.mark.parametrize("fields", OTHER.values(), ids=OTHER)
def test_what_decides_what_starts_a_new_run(fields: dict[str, Any]) -> None:
    assert inputs_digest(spec(**fields)) != inputs_digest(spec())


def test_a_plan_has_the_source_and_the_options() -> None:
    plan = make_plan(spec(buildArgs=[{"name": "A", "value": "1"}], cache={"noCache": True}))
    assert isinstance(plan.source, Inline)
    assert (plan.build_args, plan.no_cache) == ({"A": "1"}, True)
    git = make_plan(spec(**GIT)).at("c" * 40)
    assert git.source == Git("https://git.example/app", ref="c" * 40, commit="c" * 40)
    http = make_plan(spec(source={"http": {"url": "https://a.example/c"}}))
    assert http.source == Http("https://a.example/c")
    assert http.at("sha256:x") is http


values = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abcd"), values)


@given(objects, objects)
def test_a_merge_patch_leads_from_the_old_to_the_new(old: Any, new: Any) -> None:
    assert merged(old, merge_patch(old, new)) == new


@given(objects)
def test_equal_objects_need_no_patch(value: Any) -> None:
    assert merge_patch(value, value) == {}


@pytest.mark.row("S14")
@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("git https://me:pw@h.example/x failed", "git https://***@h.example/x failed"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer ***"),
        ("GET /x?token=abc&a=1", "GET /x?token=***&a=1"),
        ("nothing to hide at a@b.example", "nothing to hide at a@b.example"),
    ],
)
def test_credentials_are_masked_by_their_form(text: str, clean: str) -> None:
    assert redact(text) == clean


def test_known_secrets_are_masked_the_longer_first() -> None:
    assert redact("abc abcdef", ["abc", "abcdef", ""]) == "*** ***"


@given(st.text(), st.integers(min_value=8, max_value=64))
def test_clipped_texts_fit(text: str, limit: int) -> None:
    assert len(clip(text, limit).encode()) <= max(limit, 3)
    assert len(tail(text, limit).encode()) <= limit


@given(st.text())
def test_printable_text_has_no_control_character(text: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", printable(text))
