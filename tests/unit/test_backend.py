"""The engine's own order: names first, then the builder, then squash, and names last."""

from dataclasses import replace

import pytest

from imagewright.api.reason import Reason
from imagewright.backend import Backend
from imagewright.builders.memory import MemoryBuilder
from imagewright.domain.outcome import Built
from imagewright.domain.plan import CLASSIC, Directory, Git, Inline, Oci, Order, Plan, Source
from imagewright.domain.progress import Progress
from imagewright.ports import Failed, Keyring, Rejected, Report, Unavailable
from tests.support.parts import FakeKeyring, FakeSources, FakeStore

NAMES = ("r.example/b:1", "a", "r.example/b:1")


class PlainBuilder(MemoryBuilder):
    """Leaves an image that has no name yet, as an engine does, and fetches nothing by itself."""

    result = Built(image_id="sha256:built")

    def fetches(self, source: Source) -> bool:
        return isinstance(source, Inline | Directory)

    async def build(self, order: Order, keyring: Keyring, report: Report) -> Built:
        await super().build(order, keyring, report)
        return self.result


class Parts:
    """A backend with a builder, a store and sources that can be looked at."""

    def __init__(self) -> None:
        self.builder, self.store, self.sources = PlainBuilder(), FakeStore(), FakeSources()
        self.backend = Backend({CLASSIC: self.builder}, self.store, self.sources)
        self.progress = Progress()

    async def build(self, plan: Plan) -> Built:
        """Build it by the only builder there is."""
        plan = replace(plan, builder=CLASSIC)
        return await self.backend.build("ref", plan, FakeKeyring(), self.progress.apply)

    def log(self) -> str:
        """All that was printed."""
        return self.progress.log_tail()


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.mark.row("seed-13")
async def test_names_are_given_last_in_order_and_once(parts: Parts) -> None:
    built = await parts.build(Plan(Inline(), images=NAMES))
    assert parts.store.did == [
        "tag sha256:built r.example/b:1",
        "tag sha256:built docker.io/library/a:latest",
    ]
    assert [one.name for one in built.pushed] == ["r.example/b", "docker.io/library/a"]
    assert built.image_id == "sha256:built"
    assert built.image_digest == built.pushed[0].digest


@pytest.mark.row("seed-12")
@pytest.mark.row("T13")
async def test_the_log_ends_with_the_familiar_names(parts: Parts) -> None:
    await parts.build(Plan(Inline(), images=("docker.io/library/x:1", "127.0.0.1:5000/x")))
    assert parts.log().splitlines() == [
        "Successfully tagged x:1",
        "Successfully tagged 127.0.0.1:5000/x:latest",
    ]


@pytest.mark.row("seed-13")
async def test_the_first_name_that_fails_stops_and_the_image_is_there_all_the_same(
    parts: Parts,
) -> None:
    parts.store.refuses = "r.example/second:latest"
    parts.store.error = Failed("Not for you.", Reason.PUSH_UNAUTHORIZED)
    names = ("r.example/first", "r.example/second", "r.example/third")
    with pytest.raises(Failed) as caught:
        await parts.build(Plan(Inline(), images=names))
    built = caught.value.built
    assert built is not None
    assert built.image_id == "sha256:built"
    assert [one.name for one in built.pushed] == ["r.example/first"]
    assert len(parts.store.did) == 2
    assert "Successfully tagged" not in parts.log()


@pytest.mark.row("seed-10")
async def test_a_build_without_an_output_is_given_no_name(parts: Parts) -> None:
    parts.builder.result = Built()
    assert await parts.build(Plan(Inline(), images=NAMES)) == Built()
    assert parts.store.did == []


@pytest.mark.row("seed-11")
async def test_squash_comes_before_the_names_and_gives_the_image_a_new_id(parts: Parts) -> None:
    parts.builder.result = Built("sha256:m", "sha256:built", repository="r.example/b")
    built = await parts.build(Plan(Inline(), images=("r.example/b:1",), squash=True))
    assert parts.store.did == ["squash sha256:built", "tag sha256:squashed r.example/b:1"]
    assert built.image_id == "sha256:squashed"


@pytest.mark.row("seed-11")
async def test_a_failed_squash_names_nothing(parts: Parts) -> None:
    parts.builder.result = Built("sha256:m", "sha256:built", repository="r.example/b")
    parts.store.error = Failed("error squashing image: no", Reason.SQUASH_FAILED)
    with pytest.raises(Failed) as caught:
        await parts.build(Plan(Inline(), images=("r.example/b:1",), squash=True))
    assert caught.value.reason is Reason.SQUASH_FAILED
    assert parts.store.did == ["squash sha256:built"]


async def test_what_its_builder_squashed_is_not_squashed_again(parts: Parts) -> None:
    await parts.build(Plan(Inline(), images=("a",), squash=True))
    assert parts.store.did == ["tag sha256:built docker.io/library/a:latest"]


@pytest.mark.row("seed-9")
@pytest.mark.row("T10")
async def test_a_bad_name_ends_it_before_the_source_is_fetched(parts: Parts) -> None:
    plan = Plan(Git("https://g.example/a"), images=("ok:1", "Not"))
    with pytest.raises(Rejected) as caught:
        await parts.build(plan)
    assert caught.value.reason is Reason.INVALID_REFERENCE
    assert (parts.sources.fetched, parts.builder.orders) == ([], [])


@pytest.mark.row("seed-20")
async def test_a_source_that_the_daemon_does_not_fetch_comes_as_a_folder(parts: Parts) -> None:
    source = Git("https://g.example/a", commit="c" * 40)
    await parts.build(Plan(source, context_dir="sub"))
    (order,) = parts.builder.orders
    assert order.plan.source == Directory("/fetched")
    assert order.plan.context_dir == "sub"
    assert parts.sources.fetched == [source]


@pytest.mark.row("seed-5")
async def test_a_source_is_held_while_it_is_built_and_not_longer(parts: Parts) -> None:
    parts.builder.error = Unavailable("gone")
    with pytest.raises(Unavailable):
        await parts.build(Plan(Git("https://g.example/a", commit="c" * 40)))
    assert (len(parts.sources.fetched), parts.sources.held) == (1, 0)


@pytest.mark.parametrize(
    ("source", "resolved"),
    [
        (Git("https://g.example/a"), "c" * 40),
        (Git("https://g.example/a", commit="d" * 40), "d" * 40),
        (Oci("r.example/a"), "sha256:resolved"),
        (Inline(), ""),
    ],
    ids=["a branch", "a commit", "an image", "inline files"],
)
async def test_a_source_is_resolved_where_it_can_move(
    parts: Parts, source: Source, resolved: str
) -> None:
    plan = Plan(source, builder=CLASSIC)
    assert (await parts.backend.resolve(plan, FakeKeyring())).resolved == resolved


@pytest.mark.row("seed-6")
def test_a_backend_without_a_builder_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="needs a builder"):
        Backend({}, FakeStore(), FakeSources())


@pytest.mark.row("seed-8")
def test_a_backend_says_which_builders_it_has(parts: Parts) -> None:
    assert parts.backend.lacks(Plan(Inline(), builder=CLASSIC)) == ""
    assert parts.backend.lacks(Plan(Inline())) == "it has no buildkit builder"


@pytest.mark.parametrize(
    ("held", "error", "overtaken"),
    [
        ("sha256:of-sha256:built", None, False),
        ("sha256:another", None, True),
        ("", None, False),
        ("", Unavailable("The registry is out."), False),
    ],
    ids=["ours", "another's", "nobody's, or not told", "a registry that does not answer"],
)
async def test_a_name_that_stands_for_another_image_is_marked(
    parts: Parts, held: str, error: Unavailable | None, overtaken: bool
) -> None:
    built = await parts.build(Plan(Inline(), images=("r.example/b:1",)))
    parts.store.held, parts.store.error = held, error
    checked = await parts.backend.checked(built, FakeKeyring())
    assert checked == replace(built, pushed=(replace(built.pushed[0], overtaken=overtaken),))
    assert parts.store.did[-1] == "holds r.example/b:1"
