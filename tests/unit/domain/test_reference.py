"""Names of images: the grammar's edges, and that the API and the tagger read one language."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from imagewright.api.imagebuild import ImageBuildSpec
from imagewright.domain.reference import InvalidReference, parse, parse_all
from tests.support.makers import INLINE

DIGEST = "sha256:" + "0" * 64


@pytest.mark.row("seed-9")
@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag"),
    [
        ("localhost:5000/a", "localhost:5000", "a", "latest"),
        ("Team/app", "Team", "app", "latest"),
        ("team/sub/app", "docker.io", "team/sub/app", "latest"),
        ("docker.io/library/a:1", "docker.io", "library/a", "1"),
        ("index.docker.io/a", "docker.io", "library/a", "latest"),
        ("r.example/a", "r.example", "a", "latest"),
        ("a__b/c--d.e:x_.-", "docker.io", "a__b/c--d.e", "x_.-"),
        ("a:" + "t" * 128, "docker.io", "library/a", "t" * 128),
    ],
    ids=[
        "a port makes a registry",
        "a capital makes a registry",
        "a plain first part is a namespace of Docker Hub",
        "Docker Hub written out",
        "Docker Hub's old name",
        "a registry's repository needs no namespace",
        "separators inside a word",
        "the longest tag",
    ],
)
def test_the_first_part_is_a_registry_or_a_namespace(
    text: str, registry: str, repository: str, tag: str
) -> None:
    found = parse(text)
    assert (found.registry, found.repository, found.tag) == (registry, repository, tag)


@pytest.mark.row("seed-9")
@pytest.mark.parametrize(
    "text",
    [
        "a:" + "t" * 129,
        "a:-x",
        "a:.x",
        "a..b",
        "a___b",
        "a/-b",
        "a_/b",
        "r.example:port/a",
        "r..example/a",
        "é",
        f"a:1@{DIGEST}",
        f"a@{DIGEST}",
    ],
    ids=[
        "a tag of 129 letters",
        "a tag that begins with a dash",
        "a tag that begins with a dot",
        "two dots in a row",
        "three underscores in a row",
        "a part that begins with a dash",
        "a part that ends with an underscore",
        "a port that is a word",
        "an empty label of a host",
        "a letter with an accent",
        "a tag and a digest",
        "a digest",
    ],
)
def test_it_is_refused_with_its_name_and_what_to_write(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse(text)
    assert repr(text) in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.row("seed-9")
def test_the_first_bad_name_of_several_is_told() -> None:
    with pytest.raises(InvalidReference, match="'B' is no image name"):
        parse_all(["a", "B", "C"])


@pytest.mark.row("seed-9")
def test_a_pinned_name_has_the_digest_and_no_tag() -> None:
    assert parse("r.example:5000/a:1").pinned(DIGEST) == f"r.example:5000/a@{DIGEST}"


hosts = st.sampled_from(["", "r.example/", "r.example:5000/", "localhost/", "[::1]:5/", "Up/"])
words = st.from_regex(r"[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
tags = st.just("") | st.from_regex(r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
names = st.builds(
    lambda host, parts, tag: host + "/".join(parts) + tag,
    hosts,
    st.lists(words, min_size=1, max_size=3),
    tags,
)


@pytest.mark.row("seed-9")
@given(names)
def test_a_full_name_stands_for_itself(name: str) -> None:
    full = parse(name)
    assert parse(str(full)) == full
    assert parse(full.familiar()) == full


@pytest.mark.row("S9")
@given(names | st.text(alphabet="aA0.:/@_-,= \n", min_size=1, max_size=12))
def test_what_the_api_lets_through_is_never_refused_later(name: str) -> None:
    try:
        spec = ImageBuildSpec.model_validate({**INLINE, "images": [name]})
    except ValidationError:
        return
    (found,) = parse_all(spec.images)
    assert not set(str(found)) & set(",=@ \n")
