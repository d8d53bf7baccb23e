"""Names of images, on real engines."""

import pytest

from devstack import Stack
from imagewright.clients.engine.auth import Login
from imagewright.clients.engine.build import Build
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import Refused, StreamError
from imagewright.failure.engine import translate
from imagewright.ports import Unavailable
from tests.support.engines import ALL, GRAPH, LATEST, built, is_there, posted, tar, unique

SCRATCH = "FROM scratch\nCOPY Dockerfile /\n"
SHA = "sha256:" + "a" * 64


def tagged(lines: list[str]) -> list[str]:
    start = "Successfully tagged "
    return [line.removeprefix(start) for line in lines if line.startswith(start)]


@pytest.mark.row("T1")
@pytest.mark.parametrize("version", [1, 2])
async def test_a_name_without_a_tag_gets_latest(engine: Engine, name: str, version: int) -> None:
    heard = await built(engine, Build(version=version, tags=(name,)), SCRATCH)

    assert (await engine.inspect(f"{name}:latest")).id == heard.result.image_id


@pytest.mark.row("T2", "B6")
async def test_names_are_told_in_order_after_the_image(engine: Engine, name: str) -> None:
    wanted = [f"{name}:b", f"{name}:c", f"{name}:a"]
    heard = await built(engine, Build(tags=tuple(wanted)), SCRATCH)

    short = heard.result.image_id.removeprefix("sha256:")[:12]
    assert tagged(heard.lines) == wanted
    assert heard.lines[-4:] == [f"Successfully built {short}", *heard.lines[-3:]]


@pytest.mark.row("T3", "T13")
async def test_names_that_mean_the_same_are_told_once_and_familiarly(
    engine: Engine, name: str
) -> None:
    short = name.removeprefix("test/")
    tags = (short, f"docker.io/library/{short}:latest", f"127.0.0.1:5000/{name}", short)
    heard = await built(engine, Build(tags=tags), SCRATCH)

    assert tagged(heard.lines) == [f"{short}:latest", f"127.0.0.1:5000/{name}:latest"]


@pytest.mark.row("T4")
async def test_an_empty_name_is_skipped(engine: Engine) -> None:
    answer = await posted(engine, "/build", [("t", "")], tar({"Dockerfile": SCRATCH}))

    assert answer.status == 200
    assert b"Successfully built" in answer.body
    assert b"Successfully tagged" not in answer.body


BAD = [
    pytest.param(
        f"x@{SHA}", "build tag cannot contain a digest", marks=pytest.mark.row("T5"), id="a digest"
    ),
    pytest.param(
        f"x:1@{SHA}",
        "build tag cannot contain a digest",
        marks=pytest.mark.row("T6"),
        id="a tag and a digest",
    ),
    pytest.param("FOO", "invalid reference format", marks=pytest.mark.row("T7"), id="upper case"),
    pytest.param(
        "a" * 64,
        "cannot specify 64-byte hexadecimal strings",
        marks=pytest.mark.row("T8"),
        id="64 hex digits",
    ),
    pytest.param("x:-y", "invalid reference format", marks=pytest.mark.row("T9"), id="a bad tag"),
    pytest.param(
        "x:" + "y" * 129, "invalid reference format", marks=pytest.mark.row("T9"), id="a long tag"
    ),
]


@pytest.mark.row("T11")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("tag", "text"), BAD)
async def test_a_bad_name_is_refused_and_the_users_to_mend(
    engine: Engine, tag: str, text: str, version: int
) -> None:
    with pytest.raises(Refused, match=text) as caught:
        await built(engine, Build(version=version, tags=(tag,)), SCRATCH)

    assert caught.value.status == 500
    assert not isinstance(translate(caught.value), Unavailable)


@pytest.mark.row("T10")
async def test_names_are_checked_before_anything_else(engine: Engine) -> None:
    query = [("t", "FOO"), ("dockerfile", "none")]
    answer = await posted(engine, "/build", query, b"no archive" * 4096)

    assert answer.status == 500
    assert "invalid reference format" in answer.json()["message"]


@pytest.mark.row("T12")
async def test_a_name_moves_to_what_was_built_last(engine: Engine, name: str) -> None:
    tag = f"{name}:1"
    first = (await built(engine, Build(tags=(tag,)), SCRATCH + unique())).result.image_id
    second = (await built(engine, Build(tags=(tag,)), SCRATCH + unique())).result.image_id

    assert first != second
    assert (await engine.inspect(tag)).id == second
    assert tag not in (await engine.inspect(first)).repo_tags


@pytest.mark.row("I1")
async def test_an_image_gets_a_name_by_any_of_its_names(engine: Engine, name: str) -> None:
    heard = await built(engine, Build(tags=(f"{name}:1",)), SCRATCH + unique())
    image = heard.result.image_id
    short = image.removeprefix("sha256:")[:12]
    for number, known in enumerate([f"{name}:1", image, short]):
        await engine.tag(known, name, f"t{number}")
        assert (await engine.inspect(f"{name}:t{number}")).id == image

    await engine.remove(f"{name}:t0")
    assert not await is_there(engine, f"{name}:t0")


@pytest.mark.row("I2")
@pytest.mark.parametrize("kind", LATEST)
async def test_without_a_repository_an_engine_says_well_and_does_nothing(
    engine: Engine, name: str
) -> None:
    await built(engine, Build(tags=(f"{name}:1",)), SCRATCH + unique())
    answer = await posted(engine, f"/images/{name}:1/tag", [("tag", "x")])

    assert answer.status == 200
    assert (await engine.inspect(f"{name}:1")).repo_tags == (f"{name}:1",)


@pytest.mark.row("I3")
@pytest.mark.parametrize(
    ("repository", "tag", "statuses", "text"),
    [
        pytest.param("FOO", "1", {500, 400}, "invalid reference format", id="upper case"),
        pytest.param("sha256", "1", {400}, "ambiguous tag", id="the name of an algorithm"),
    ],
)
async def test_a_name_that_is_none_is_not_given(
    engine: Engine, name: str, repository: str, tag: str, statuses: set[int], text: str
) -> None:
    await built(engine, Build(tags=(f"{name}:1",)), SCRATCH)
    with pytest.raises(Refused, match=text) as caught:
        await engine.tag(f"{name}:1", repository, tag)
    assert caught.value.status in statuses

    digest = await posted(engine, f"/images/{name}:1/tag", [("repo", f"x@{SHA}")])
    assert digest.status == 400
    assert "digest reference" in digest.json()["message"]

    with pytest.raises(Refused, match=r"(?i)no such image") as missing:
        await engine.tag(f"{name}:none", name, "2")
    assert missing.value.status == 404


@pytest.mark.row("I4", "I11")
async def test_a_push_ends_with_the_digest_in_the_registry(
    engine: Engine, stack: Stack, kind: str, name: str
) -> None:
    repository = f"{stack.registry}/{name}"
    heard = await built(engine, Build(tags=(f"{repository}:1",)), SCRATCH + unique())
    digest = await engine.push(repository, "1")
    image = await engine.inspect(f"{repository}:1")

    assert f"{repository}@{digest}" in image.repo_digests
    assert image.id == heard.result.image_id
    # On a containerd store the id is the manifest's, elsewhere the configuration's.
    assert (image.id == digest) is (kind == "containerd")


@pytest.mark.row("I12")
@pytest.mark.parametrize("kind", ALL)
async def test_a_digest_in_the_list_is_no_proof_of_a_push(
    engine: Engine, kind: str, name: str
) -> None:
    await built(engine, Build(tags=(f"127.0.0.1:1/{name}:1",)), SCRATCH + unique())
    image = await engine.inspect(f"127.0.0.1:1/{name}:1")

    assert bool(image.repo_digests) is (kind == "containerd")


@pytest.mark.row("I5")
async def test_an_old_engine_wants_to_know_who_pushes(engine: Engine, kind: str) -> None:
    answer = await posted(engine, "/images/127.0.0.1:1/x/push", [("tag", "1")])

    assert (answer.status == 400) is (kind == "old")
    if kind == "old":
        assert "X-Registry-Auth" in answer.json()["message"]


@pytest.mark.row("I7")
async def test_a_tag_that_is_not_there_is_not_pushed(
    engine: Engine, stack: Stack, name: str
) -> None:
    repository = f"{stack.registry}/{name}"
    await built(engine, Build(tags=(f"{repository}:1",)), SCRATCH)
    with pytest.raises(StreamError, match=r"(?i)tag"):
        await engine.push(repository, "2")


@pytest.mark.row("I6")
@pytest.mark.parametrize("kind", ["containerd"])
async def test_wrong_credentials_do_not_push(engine: Engine, stack: Stack, name: str) -> None:
    repository = f"{stack.registries['htpasswd']}/{name}"
    await built(engine, Build(tags=(f"{repository}:1",)), SCRATCH)
    with pytest.raises(StreamError, match=r"(?i)auth"):
        await engine.push(repository, "1", Login("builder", "wrong"))


@pytest.mark.row("I10")
async def test_an_image_is_there_missing_or_misnamed(engine: Engine, name: str) -> None:
    labels = {"a": "b"}
    await built(engine, Build(tags=(f"{name}:1",), labels=labels), SCRATCH)
    image = await engine.inspect(f"{name}:1")
    assert image.labels == labels
    assert len(image.layers) == 1
    assert image.size > 0

    for bad, status in ((f"{name}:none", 404), ("BAD", 400)):
        with pytest.raises(Refused) as caught:
            await engine.inspect(bad)
        assert caught.value.status == status


@pytest.mark.parametrize("kind", GRAPH)
async def test_a_graph_driver_knows_the_step_before(engine: Engine, name: str) -> None:
    heard = await built(engine, Build(tags=(f"{name}:1",)), SCRATCH + unique())

    assert (await engine.inspect(heard.result.image_id)).parent
