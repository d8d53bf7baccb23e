"""Inputs: every field of a spec either starts a new run or does not, and the plan has it."""

from typing import Any

import pytest

from imagewright.api.imagebuild import ImageBuildSpec
from imagewright.domain.plan import OPERATIONAL, Git, Http, Inline, inputs_digest, make_plan
from tests.support.makers import GIT, INLINE

CHANGES: dict[str, Any] = {
    "source": {"inline": {"files": {"Dockerfile": "FROM scratch\nLABEL other=yes\n"}}},
    "contextDir": "sub",
    "dockerfile": "docker/Dockerfile",
    "dockerfileInline": "FROM scratch\n",
    "target": "t",
    "buildArgs": [{"name": "A", "value": "1"}],
    "images": ["r.example/a:1"],
    "labels": {"a": "1"},
    "annotations": {"a": "1"},
    "platforms": ["linux/arm64"],
    "pull": True,
    "cache": {"noCache": True},
    "network": "none",
    "activeDeadlineSeconds": 5,
    "ttlSecondsAfterFinished": 5,
    "suspend": True,
    "cancel": True,
    "rebuildToken": "again",
}


def spec(**fields: Any) -> ImageBuildSpec:
    """A spec of inline files with these fields."""
    return ImageBuildSpec.model_validate({**INLINE, **fields})


def test_the_table_of_changes_has_every_field_of_a_spec() -> None:
    fields = {field.alias for field in ImageBuildSpec.model_fields.values()}
    assert set(CHANGES) == fields
    assert fields > OPERATIONAL


@pytest.mark.parametrize(("field", "value"), CHANGES.items(), ids=CHANGES)
def test_a_field_starts_a_new_run_unless_it_is_operational(field: str, value: Any) -> None:
    changed = inputs_digest(spec(**{field: value})) != inputs_digest(spec())
    assert changed is (field not in OPERATIONAL)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"labels": {"a": "1", "b": "2"}}, {"labels": {"b": "2", "a": "1"}}, True),
        ({"cache": {}}, {"cache": {"noCache": False}}, True),
        ({"buildArgs": []}, {}, True),
        ({"images": ["a:1", "b:1"]}, {"images": ["b:1", "a:1"]}, False),
        ({"rebuildToken": "1"}, {"rebuildToken": "2"}, False),
        ({"labels": {"a": "b"}}, {"annotations": {"a": "b"}}, False),
    ],
    ids=[
        "the order of labels does not count",
        "a default inside an object is as none",
        "an empty list is as none",
        "the order of names counts",
        "any change of the token counts",
        "a value counts by its place",
    ],
)
def test_equal_inputs_have_equal_digests(
    one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    assert (inputs_digest(spec(**one)) == inputs_digest(spec(**other))) is same


def test_every_option_of_the_spec_is_in_the_plan() -> None:
    plan = make_plan(spec(**CHANGES | INLINE | {"dockerfile": "Dockerfile"}))
    assert isinstance(plan.source, Inline)
    assert (plan.context_dir, plan.dockerfile_inline) == ("sub", "FROM scratch\n")
    assert (plan.target, plan.build_args, plan.images) == ("t", {"A": "1"}, ("r.example/a:1",))
    assert (plan.labels, plan.annotations) == ({"a": "1"}, {"a": "1"})
    assert (plan.platforms, plan.network) == (("linux/arm64",), "none")
    assert (plan.pull, plan.no_cache) == (True, True)


@pytest.mark.row("seed-20")
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"git": {"url": "https://g.example/a"}}, Git("https://g.example/a")),
        (
            {"git": {"url": "https://g.example/a", "revision": "v1", "submodules": True}},
            Git("https://g.example/a", "v1", submodules=True),
        ),
        (
            {"http": {"url": "https://a.example/c.tar", "sha256": "a" * 64}},
            Http("https://a.example/c.tar", "a" * 64),
        ),
    ],
    ids=["a repository", "a repository at a tag, with submodules", "a download"],
)
def test_a_source_is_carried_over_whole(source: dict[str, Any], expected: Git | Http) -> None:
    assert make_plan(spec(source=source)).source == expected


@pytest.mark.parametrize("written", ["sub/", "sub"])
def test_a_folder_has_one_spelling(written: str) -> None:
    assert make_plan(spec(contextDir=written)).context_dir == "sub"


def test_a_retry_fetches_the_commit_itself_and_remembers_the_repository() -> None:
    plan = make_plan(spec(**GIT))
    again = plan.at("c" * 40)
    assert again.source == Git("https://git.example/app", ref="c" * 40, commit="c" * 40)
    assert plan.at("") is plan
