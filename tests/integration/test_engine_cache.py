"""Pruning the build cache of real engines. Each test has the cache for itself, and empties it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta

import pytest

from imagewright.clients.engine.build import Build
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import Unsupported
from imagewright.clients.engine.prune import Prune, Pruned
from tests.support.engines import LATEST, built, is_there, pieces, posted, tar, unique


@pytest.fixture(autouse=True)
async def empty(engine: Engine) -> AsyncIterator[None]:
    """A cache without records, before and after."""
    await engine.prune(Prune(all=True))
    yield
    await engine.prune(Prune(all=True))


async def filled(engine: Engine, base: str, name: str) -> str:
    """Some records, a cache mount among them, and an image that holds some. Its name."""
    lines = (
        f"FROM {base}\n{unique()}RUN --mount=type=cache,target=/c echo {name} | tee /c/a >/a\n"
        "RUN echo b >/b\nCOPY Dockerfile /\n"
    )
    await built(engine, Build(version=2, tags=(f"{name}:1",)), lines)
    return f"{name}:1"


@pytest.mark.row("P1")
async def test_an_empty_cache_gives_nothing(engine: Engine) -> None:
    assert await engine.prune(Prune(all=True)) == Pruned()
    assert (await posted(engine, "/build/prune", [("all", "1")])).json()["CachesDeleted"] is None


@pytest.mark.row("P2", "P3")
async def test_what_images_hold_goes_only_if_all_does_and_the_images_stay(
    engine: Engine, base: str, name: str
) -> None:
    image = await filled(engine, base, name)
    # Others' records may be in use for long: only what is surely this build's is looked at.
    records = await engine.disk_usage()
    shared = {one.id for one in records if one.shared and name in one.description}
    assert shared
    gone = await engine.prune(Prune())
    assert gone.ids
    assert not shared & set(gone.ids)
    assert {record.id for record in await engine.disk_usage()} >= shared

    taken: set[str] = set()
    async with asyncio.timeout(60):
        # A build lets go of its last records only a moment after its end.
        while shared - taken:
            taken |= set((await engine.prune(Prune(all=True))).ids)
    assert await is_there(engine, image)


@pytest.mark.row("P4")
async def test_an_amount_is_kept(engine: Engine, base: str, name: str) -> None:
    await filled(engine, base, name)

    assert await engine.prune(Prune(all=True, reserved_space=10**12)) == Pruned()
    assert (await engine.prune(Prune(all=True, reserved_space=1))).ids


@pytest.mark.row("P5")
async def test_a_limit_is_not_sent_to_an_engine_that_overlooks_it(
    engine: Engine, kind: str, base: str, name: str
) -> None:
    await filled(engine, base, name)
    limit = Prune(all=True, max_used_space=10**12)
    if kind == "old":
        with pytest.raises(Unsupported):
            await engine.prune(limit)
    else:
        assert await engine.prune(limit) == Pruned()
    assert await engine.disk_usage()

    # What it would have done: under an older version any engine overlooks it.
    answer = await posted(engine, "/build/prune", [("all", "1"), ("reserved-space", str(10**12))])
    assert bool(answer.json()["CachesDeleted"]) is (kind == "old")


@pytest.mark.row("P6")
@pytest.mark.parametrize("kind", LATEST)
async def test_free_space_that_is_there_costs_one_record(
    engine: Engine, base: str, name: str
) -> None:
    await filled(engine, base, name)
    before = await engine.disk_usage()
    gone = await engine.prune(Prune(all=True, min_free_space=1))

    assert len(before) > 1
    assert len(gone.ids) <= 1


@pytest.mark.row("P8")
async def test_an_age_is_a_duration(engine: Engine, base: str, name: str, kind: str) -> None:
    await filled(engine, base, name)

    assert await engine.prune(Prune(all=True, keep=timedelta(hours=1))) == Pruned()
    moment = await posted(
        engine, "/build/prune", [("filters", json.dumps({"until": ["2020-01-01T00:00:00Z"]}))]
    )
    assert moment.status == (500 if kind == "old" else 200)
    assert (await engine.prune(Prune(all=True, keep=timedelta(milliseconds=1)))).ids


@pytest.mark.row("P10")
async def test_an_id_is_a_pattern(engine: Engine, base: str, name: str) -> None:
    await filled(engine, base, name)
    children = {parent for record in await engine.disk_usage() for parent in record.parents}
    record = next(one for one in await engine.disk_usage() if one.type == "exec.cachemount")
    gone = await engine.prune(Prune(all=True, filters={"id": f"^{record.id[:8]}"}))

    assert record.id not in children
    assert gone.ids == (record.id,)


@pytest.mark.row("P11")
async def test_a_type_is_exact(engine: Engine, base: str, name: str) -> None:
    await filled(engine, base, name)
    record = next(one for one in await engine.disk_usage() if one.type == "exec.cachemount")

    assert await engine.prune(Prune(all=True, filters={"type": "exec.cache"})) == Pruned()
    exact = Prune(all=True, filters={"type": "exec.cachemount"})
    assert (await engine.prune(exact)).ids == (record.id,)


@pytest.mark.row("P12")
async def test_a_description_is_quoted_and_exact(
    engine: Engine, base: str, name: str, kind: str
) -> None:
    await filled(engine, base, name)
    record = next(one for one in await engine.disk_usage() if one.type == "exec.cachemount")
    bare = {"description": [record.description]}
    refused = await posted(engine, "/build/prune", [("filters", json.dumps(bare))])
    assert refused.status >= 400

    exact = Prune(all=True, filters={"description": record.description})
    if kind == "old":
        with pytest.raises(Unsupported, match="description"):
            await engine.prune(exact)
        return
    part = Prune(all=True, filters={"description": record.description[:-1]})
    assert await engine.prune(part) == Pruned()
    assert (await engine.prune(exact)).ids == (record.id,)


@pytest.mark.row("P13")
async def test_shared_and_private_take_no_value(engine: Engine, base: str, name: str) -> None:
    await filled(engine, base, name)
    shared = {record.id for record in await engine.disk_usage() if record.shared}
    query = [("all", "1"), ("filters", json.dumps({"shared": ["true"]}))]

    assert (await posted(engine, "/build/prune", query)).json()["CachesDeleted"] is None
    gone = await engine.prune(Prune(all=True, filters={"shared": ""}))
    assert gone.ids
    assert set(gone.ids) <= shared


@pytest.mark.row("P14")
async def test_use_and_parents_match_nothing(engine: Engine, base: str, name: str) -> None:
    await filled(engine, base, name)
    parent = next(record.parents[0] for record in await engine.disk_usage() if record.parents)
    useless: list[dict[str, list[str]]] = [{"inuse": []}, {"parent": [parent]}]
    for filters in useless:
        query = [("all", "1"), ("filters", json.dumps(filters))]
        assert (await posted(engine, "/build/prune", query)).json()["CachesDeleted"] is None


@pytest.mark.row("P7")
async def test_a_size_is_a_whole_number(engine: Engine, kind: str) -> None:
    parameter = "keep-storage" if kind == "old" else "reserved-space"
    answer = await posted(engine, "/build/prune", [(parameter, "10GB")])

    assert answer.status == (500 if kind == "old" else 400)
    assert "in bytes and expects an integer" in answer.json()["message"]


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        pytest.param(
            {"until": ["1h", "2h"]},
            "filters expect only one value",
            marks=pytest.mark.row("P9"),
            id="two ages",
        ),
        pytest.param(
            {"until": ["1h"], "unused-for": ["1h"]},
            "conflicting filters",
            marks=pytest.mark.row("P9"),
            id="one age by two names",
        ),
        pytest.param(
            {"foo": ["x"]},
            "invalid filter 'foo'",
            marks=pytest.mark.row("P16"),
            id="an unknown filter",
        ),
    ],
)
async def test_filters_that_are_none(
    engine: Engine, filters: dict[str, list[str]], text: str
) -> None:
    answer = await posted(engine, "/build/prune", [("filters", json.dumps(filters))])

    assert answer.status == 400
    assert text in answer.json()["message"].lower()


@pytest.mark.row("P17")
async def test_filters_that_are_no_json(engine: Engine, kind: str) -> None:
    answer = await posted(engine, "/build/prune", [("filters", "{")])

    assert answer.status == (500 if kind == "old" else 400)
    expected = "could not parse filters" if kind == "old" else "invalid filter"
    assert expected in answer.json()["message"]


@pytest.mark.row("P15")
async def test_a_label_is_ignored(engine: Engine, base: str, name: str) -> None:
    await filled(engine, base, name)
    query = [("all", "1"), ("filters", json.dumps({"label": ["nobody=has"]}))]

    assert (await posted(engine, "/build/prune", query)).json()["CachesDeleted"]


@pytest.mark.row("P18")
async def test_what_a_build_uses_stays(engine: Engine, base: str, name: str) -> None:
    lines = f"FROM {base}\n{unique()}RUN echo a >/a\nRUN sleep 6\nRUN echo b >/b\n"
    build = Build(version=2, tags=(f"{name}:1",))
    task = asyncio.create_task(engine.run(build, pieces(tar({"Dockerfile": lines}))))
    async with asyncio.timeout(60):
        while not (used := [r for r in await engine.disk_usage() if r.in_use]):
            await asyncio.sleep(0.05)
    gone = await engine.prune(Prune(all=True))

    assert not {record.id for record in used} & set(gone.ids)
    assert (await task).image_id == (await engine.inspect(f"{name}:1")).id


@pytest.mark.row("P19")
async def test_an_event_tells_what_was_freed(engine: Engine, base: str, name: str) -> None:
    await filled(engine, base, name)
    async with aclosing(engine.events({"type": ["builder"]})) as events:
        told = asyncio.ensure_future(anext(events))
        async with asyncio.timeout(30):
            # Nothing says that the stream of events is open: so one prune after another, until
            # it is.
            while not told.done():
                await engine.prune(Prune(all=True))
                await asyncio.wait([told], timeout=0.2)
        event = await told

    assert event["Action"] == "prune"
    assert event["Actor"]["Attributes"]["reclaimed"].isdigit()


@pytest.mark.row("P20")
async def test_the_classic_cache_is_not_touched(engine: Engine, base: str) -> None:
    lines = f"FROM {base}\n{unique()}RUN echo a >/a\n"
    await built(engine, Build(), lines)
    await engine.prune(Prune(all=True))

    assert " ---> Using cache" in (await built(engine, Build(), lines)).lines


@pytest.mark.row("X7")
async def test_records_know_their_parents(engine: Engine, base: str, name: str) -> None:
    await filled(engine, base, name)
    records = await engine.disk_usage()
    ids = {record.id for record in records}

    assert any(record.parents for record in records)
    assert {parent for record in records for parent in record.parents} <= ids
    assert all(record.created_at and record.type for record in records)
