"""Squash, both ways: the image has its base's layers and one more, and the same files."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import devstack
from devstack.images import crane
from imagewright.api.reason import Reason
from imagewright.assembly import buildkit_worker, engine_worker, shared_of
from imagewright.backend import Backend
from imagewright.domain.outcome import Built
from imagewright.domain.plan import BUILDKIT, CLASSIC, Inline, Plan
from imagewright.domain.progress import Progress
from imagewright.main import clock
from imagewright.ports import Failed, Rejected
from imagewright.settings import Settings, SourceSettings
from tests.support.filetree import Unpacker
from tests.support.parts import FakeKeyring

BASE = """\
FROM {base}
RUN mkdir -p /old/deep && echo one > /old/a && echo two > /old/deep/b && echo three > /kept \
 && ln /kept /kept-too && mkdir /emptied && touch /emptied/x
"""
STEPS = """\
FROM {base}
LABEL kept=yes
RUN echo temporary > /tmp-file && mkdir -p /new && echo more > /new/file
RUN rm /tmp-file && rm -r /old && mkdir -m 700 /old && echo again > /old/c
RUN chown 1000:1001 /new/file && chmod 4711 /new/file && ln /new/file /new/same
RUN ln -s ../kept /new/link && mknod /new/pipe p
RUN echo 1 > /new/first && ln /new/first /new/second && ln /new/first /new/third
RUN rm /new/first && chmod 600 /new/second
RUN echo replaced > /kept && rm /emptied/x && chown 1000:1000 /emptied && touch -d @1700000000 /new
ENV AFTER=1
"""
_numbers = iter(range(1, 1000))


class Bench:
    """A backend and the stack that it builds on."""

    def __init__(self, backend: Backend, builder: str, stack: devstack.Stack) -> None:
        self.backend, self.builder, self.stack = backend, builder, stack

    async def build(self, text: str, name: str, *, squash: bool = False) -> Built:
        """Build a Dockerfile under a name of the stack's registry."""
        plan = Plan(
            Inline({"Dockerfile": text.encode()}),
            builder=self.builder,
            images=(f"{self.stack.registry}/{name}",),
            squash=squash,
        )
        ref = f"squash-{next(_numbers)}"
        return await self.backend.build(ref, plan, FakeKeyring(), Progress().apply)

    async def base(self) -> str:
        """A base image with files to hide."""
        await self.build(BASE.format(base=self.stack.base_image), f"squash/{self.builder}-base")
        return f"{self.stack.registry}/squash/{self.builder}-base"


@pytest.fixture(params=["buildkit", "classic"])
async def bench(
    request: pytest.FixtureRequest, stack: devstack.Stack, tmp_path: Path
) -> AsyncIterator[Bench]:
    """Each way in turn."""
    settings = Settings(sources=SourceSettings(folder=tmp_path / "fetched"))
    async with AsyncExitStack() as running:
        shared = await running.enter_async_context(shared_of(settings, clock))
        if request.param == "buildkit":
            made = buildkit_worker(stack.buildkit, None, shared)
        else:
            engine = await asyncio.to_thread(stack.engine, "new", lambda _: None)
            made = engine_worker(engine.address, None, shared)
        worker = await running.enter_async_context(made)
        assert isinstance(worker.backend, Backend)
        yield Bench(worker.backend, BUILDKIT if request.param == "buildkit" else CLASSIC, stack)


@pytest.mark.row("seed-1")
@pytest.mark.row("seed-11")
@pytest.mark.row("B8")
async def test_a_squashed_image_has_one_layer_more_than_its_base_and_the_same_files(
    bench: Bench, unpack: Unpacker, tmp_path: Path
) -> None:
    base, kind = await bench.base(), bench.builder
    plain = await bench.build(STEPS.format(base=base), f"squash/{kind}-plain")
    squashed = await bench.build(STEPS.format(base=base), f"squash/{kind}-one", squash=True)
    layers = [
        len(layers_of(bench.stack, f"squash/{kind}-{name}")) for name in ("base", "plain", "one")
    ]
    assert layers[2] == layers[0] + 1
    assert layers[1] > layers[2]
    assert squashed.image_digest != plain.image_digest
    assert digest_of(bench.stack, f"squash/{kind}-one") == squashed.image_digest
    first, second = [
        await asyncio.to_thread(
            unpack, f"{bench.stack.registry}/squash/{kind}-{name}", tmp_path / name
        )
        for name in ("plain", "one")
    ]
    assert second == first
    assert second["new/file"]["names"] == ["new/file", "new/same"]
    assert second["new/file"]["owner"] == (1000, 1001)
    assert second["new/file"]["mode"] == "-rws--x--x"
    assert "old/a" not in second


@pytest.mark.row("seed-11")
async def test_history_and_settings_are_kept_and_what_was_done_is_said(bench: Bench) -> None:
    base, kind = await bench.base(), bench.builder
    name = f"squash/{kind}-history"
    built = await bench.build(STEPS.format(base=base), name, squash=True)
    config = config_of(bench.stack, name)
    assert "AFTER=1" in config["config"]["Env"]
    assert config["config"]["Labels"]["kept"] == "yes"
    layered = [entry for entry in config["history"] if not entry.get("empty_layer")]
    # The merged layer's own entry is the last: every step's above the base is hollow.
    assert len(layered) == len(config["rootfs"]["diff_ids"])
    assert config["history"][-1]["comment"].startswith("merge sha256:")
    if kind == BUILDKIT:
        assert built.image_id == manifest_of(bench.stack, name)["config"]["digest"]


@pytest.mark.row("seed-11")
async def test_a_squashed_image_runs(bench: Bench) -> None:
    name = f"squash/{bench.builder}-runs"
    await bench.build(STEPS.format(base=await bench.base()), name, squash=True)
    text = (
        f"FROM {bench.stack.registry}/{name}\n"
        "RUN test $(cat /old/c) = again && test $(cat /kept-too) = three && test ! -e /old/a\n"
    )
    await bench.build(text, f"{name}-on-top")


async def test_from_scratch_all_becomes_one_layer(bench: Bench) -> None:
    name = f"squash/{bench.builder}-scratch"
    text = f"FROM {bench.stack.base_image} AS b\nRUN echo 1 > /a && echo 2 > /b\n"
    text += "FROM scratch\nCOPY --from=b /a /a\nCOPY --from=b /b /b\n"
    await bench.build(text, name, squash=True)
    assert len(layers_of(bench.stack, name)) == 1


@pytest.mark.row("seed-11")
@pytest.mark.row("B9")
async def test_squash_without_a_change_of_files_says_that_there_is_nothing_to_squash(
    bench: Bench,
) -> None:
    name = f"squash/{bench.builder}-nothing"
    text = f"FROM {bench.stack.base_image}\nENV A={bench.builder}\n"
    with pytest.raises(Failed) as caught:
        await bench.build(text, name, squash=True)
    assert caught.value.reason is Reason.SQUASH_FAILED
    assert "nothing to squash" in caught.value.message
    with pytest.raises(Exception, match="exit status 1"):
        digest_of(bench.stack, name)


@pytest.mark.row("B10")
@pytest.mark.row("B12")
@pytest.mark.parametrize(
    ("kind", "sentence"),
    [("containerd", "containerd store, which cannot squash"), ("plain", "experimental mode")],
)
async def test_an_engine_that_cannot_squash_is_told_before_it_builds(
    stack: devstack.Stack, tmp_path: Path, kind: str, sentence: str
) -> None:
    settings = Settings(sources=SourceSettings(folder=tmp_path))
    engine = await asyncio.to_thread(stack.engine, kind, lambda _: None)
    async with (
        shared_of(settings, clock) as shared,
        engine_worker(engine.address, None, shared) as worker,
    ):
        assert isinstance(worker.backend, Backend)
        progress = Progress()
        plan = Plan(
            Inline({"Dockerfile": f"FROM {stack.base_image}\nRUN echo > /x\n".encode()}),
            builder=CLASSIC,
            squash=True,
        )
        with pytest.raises(Rejected, match=sentence) as caught:
            await worker.backend.build("squash", plan, FakeKeyring(), progress.apply)
    assert caught.value.reason is Reason.FEATURE_UNSUPPORTED
    assert progress.steps == {}


def manifest_of(stack: devstack.Stack, name: str) -> dict[str, Any]:
    """The image's manifest, as the registry has it."""
    found: dict[str, Any] = json.loads(crane(stack, "manifest", f"{stack.registry}/{name}"))
    return found


def layers_of(stack: devstack.Stack, name: str) -> list[str]:
    """The digests of its layers."""
    return [layer["digest"] for layer in manifest_of(stack, name)["layers"]]


def config_of(stack: devstack.Stack, name: str) -> dict[str, Any]:
    """Its configuration."""
    found: dict[str, Any] = json.loads(crane(stack, "config", f"{stack.registry}/{name}"))
    return found


def digest_of(stack: devstack.Stack, name: str) -> str:
    """What the name stands for."""
    return crane(stack, "digest", f"{stack.registry}/{name}").strip()
