"""BuildCachePrune on real engines, old and new: the same spec means the same there."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import devstack
from devstack.builds import condition
from devstack.prunes import Prunes
from imagewright.clients.engine.build import Build
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.prune import Prune
from tests.support.engines import built
from tests.support.engines import unique as unlike
from tests.support.pruning import operating, run


@pytest.fixture(autouse=True)
async def empty(engine: Engine) -> AsyncIterator[None]:
    """A cache without records, before and after."""
    await engine.prune(Prune(all=True))
    yield
    await engine.prune(Prune(all=True))


@pytest.fixture
async def served(
    stack: devstack.Stack, kind: str, tmp_path: Path, engine: Engine, base: str
) -> AsyncIterator[str]:
    """The name of a worker on the engine, which an operator serves and whose cache is filled."""
    lines = (
        f"FROM {base}\n{unlike()}RUN --mount=type=cache,target=/c echo a | tee /c/a >/a\n"
        "RUN dd if=/dev/zero of=/b bs=64k count=9\nCOPY Dockerfile /\n"
    )
    await built(engine, Build(version=2), lines)
    worker = f"docker+{stack.engine(kind).address}"
    async with operating(stack, tmp_path, [worker], sources={"folder": str(tmp_path / "s")}):
        yield worker


@pytest.mark.row("seed-15")
@pytest.mark.row("P11")
async def test_types_and_sizes_mean_what_they_mean_on_buildkit(
    prunes: Prunes, engine: Engine, served: str
) -> None:
    before = {record.id: record for record in await engine.disk_usage()}
    kept = await run(prunes, all=True, reservedSpace="1Ti")
    assert kept.status["phase"] == "Succeeded", kept.status
    assert kept.status["cachesDeleted"] == 0
    told = (await run(prunes, dryRun=True, filters={"type": ["exec.cachemount"]})).status
    assert {record.id for record in await engine.disk_usage()} >= set(told["cacheIDs"])
    types = ["exec.cachemount", "source.local"]
    done = (await run(prunes, filters={"type": types})).status
    assert set(told["cacheIDs"]) <= set(done["cacheIDs"])
    assert {before[name].type for name in done["cacheIDs"]} <= set(types)
    assert "exec.cachemount" not in {record.type for record in await engine.disk_usage()}
    (target,) = done["targets"]
    assert (target["worker"], target["kind"]) == (served, "engine")


@pytest.mark.row("seed-14")
@pytest.mark.row("P1")
async def test_everything_goes_and_then_nothing_is_left_to_go(prunes: Prunes, served: str) -> None:
    first = (await run(prunes, all=True)).status
    assert first["phase"] == "Succeeded", first
    assert first["reclaimedBytes"] > 9 * 65536
    own, engine = first["targets"]
    assert (own["kind"], engine["worker"]) == ("sources", served)
    assert engine["usedBytesAfter"] < engine["usedBytesBefore"]
    assert len(first["cacheIDs"]) == first["cachesDeleted"] > 0
    await run(prunes, all=True)
    third = (await run(prunes, all=True, workers=[served])).status
    assert (third["reclaimedBytes"], third["cachesDeleted"]) == (0, 0)


@pytest.mark.row("P5")
@pytest.mark.row("seed-15")
async def test_a_limit_that_an_old_engine_would_overlook_is_refused(
    prunes: Prunes, engine: Engine, kind: str, served: str
) -> None:
    before = {record.id for record in await engine.disk_usage()}
    ended = await run(prunes, all=True, maxUsedSpace="1Ti")
    assert {record.id for record in await engine.disk_usage()} == before
    if kind == "old":
        assert condition(ended.body, "Succeeded")["reason"] == "FeatureUnsupported"
        assert served in condition(ended.body, "Succeeded")["message"]
    else:
        assert ended.status["phase"] == "Succeeded"
        assert ended.status["cachesDeleted"] == 0
