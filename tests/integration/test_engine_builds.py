"""Builds on real engines: who builds, what comes of it, and what is refused."""

import asyncio
import gzip
import json
import re

import pytest

from imagewright.clients.engine.build import BUILDKIT, CLASSIC, Build
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import EngineError, Refused, StreamError
from imagewright.clients.engine.stream import Aux, Message, Output, Trace
from tests.support.engines import (
    GRAPH,
    LATEST,
    built,
    containers,
    is_there,
    pieces,
    posted,
    tar,
    unique,
)

SCRATCH = "FROM scratch\nCOPY Dockerfile /\n"
BOTH = [CLASSIC, BUILDKIT]


@pytest.mark.row("B1", "B2", "B5", "B7")
async def test_the_version_is_the_builder(engine: Engine, kind: str, name: str) -> None:
    context = tar({"Dockerfile": SCRATCH + unique()})
    default = await posted(engine, "/build", [], context)
    stream = engine.build(Build(version=2, tags=(f"{name}:1",)), pieces(context))
    said = [message async for message in stream]

    assert b'"Step 1/3' in default.body
    assert any(isinstance(message, Trace) for message in said)
    facts = [message for message in said if isinstance(message, Aux)]
    assert [fact.id for fact in facts] == ["moby.image.id"]
    assert (await engine.inspect(f"{name}:1")).id == facts[0].value["ID"]
    printed = [message.text for message in said if isinstance(message, Output)]
    assert printed == ([f"Successfully tagged {name}:1\n"] if kind == "old" else [])


@pytest.mark.row("B3")
async def test_there_is_no_third_builder(engine: Engine, kind: str) -> None:
    answer = await posted(engine, "/build", [("version", "3")], tar({"Dockerfile": SCRATCH}))

    assert answer.status == (500 if kind == "old" else 400)
    assert answer.json()["message"] == 'invalid version "3"'


@pytest.mark.row("B4", "B17")
async def test_the_image_is_that_of_the_last_stage_or_of_the_target(
    engine: Engine, name: str
) -> None:
    stages = f"FROM scratch AS one\n{unique()}LABEL s=one\nFROM scratch\n{unique()}LABEL s=two\n"
    last = await built(engine, Build(tags=(f"{name}:last",)), stages)
    one = await built(engine, Build(target="one", tags=(f"{name}:one",)), stages)

    assert (await engine.inspect(last.result.image_id)).labels == {"s": "two"}
    assert (await engine.inspect(one.result.image_id)).labels == {"s": "one"}
    assert not any("s=two" in line for line in one.lines)


@pytest.mark.row("B18")
async def test_there_is_no_such_target(engine: Engine) -> None:
    with pytest.raises(Refused, match="nope") as classic:
        await built(engine, Build(target="nope"), SCRATCH)
    with pytest.raises(StreamError, match="nope"):
        await built(engine, Build(version=2, target="nope"), SCRATCH)

    assert classic.value.status == 400


@pytest.mark.row("B8")
@pytest.mark.parametrize("kind", GRAPH)
async def test_squash_leaves_one_layer_above_the_base(engine: Engine, base: str) -> None:
    lines = f"FROM {base}\n{unique()}RUN echo a >/a\nRUN echo b >/b\n"
    plain = await built(engine, Build(), lines)
    squashed = await built(engine, Build(squash=True), lines)
    below = await engine.inspect(base)
    above = await engine.inspect(squashed.result.image_id)

    assert squashed.result != plain.result
    assert above.layers[:-1] == below.layers
    assert len((await engine.inspect(plain.result.image_id)).layers) == len(above.layers) + 1


@pytest.mark.row("B9")
@pytest.mark.parametrize("kind", GRAPH)
async def test_squash_of_no_change_fails(engine: Engine, base: str) -> None:
    with pytest.raises(StreamError, match="cannot provide diff to non-parent"):
        await built(engine, Build(squash=True), f"FROM {base}\n{unique()}RUN true\n")


@pytest.mark.row("B10")
@pytest.mark.parametrize("kind", ["containerd"])
async def test_squash_on_a_containerd_store_fails_at_the_end(engine: Engine, base: str) -> None:
    said: list[Message] = []

    async def follow() -> None:
        context = pieces(tar({"Dockerfile": f"FROM {base}\n{unique()}RUN echo a >/a\n"}))
        async for message in engine.build(Build(squash=True), context):
            said.append(message)  # noqa: PERF401  # what came before the error counts

    with pytest.raises(StreamError, match="not implemented"):
        await follow()

    ids = [message.value["ID"] for message in said if isinstance(message, Aux)]
    assert await is_there(engine, ids[-1])


@pytest.mark.row("B11")
@pytest.mark.parametrize("kind", ["new"])
async def test_buildkits_squash_leaves_the_name_behind(
    engine: Engine, base: str, name: str
) -> None:
    lines = f"FROM {base}\n{unique()}RUN echo a >/a\nRUN echo b >/b\n"
    build = Build(version=2, squash=True, tags=(f"{name}:1",))
    squashed = (await built(engine, build, lines)).result.image_id
    named = await engine.inspect(f"{name}:1")

    assert named.id != squashed
    assert len(named.layers) > len((await engine.inspect(squashed)).layers)


@pytest.mark.row("B13")
@pytest.mark.parametrize("kind", ["old"])
async def test_buildkits_squash_takes_the_base_too(engine: Engine, base: str) -> None:
    lines = f"FROM {base}\n{unique()}RUN echo a >/a\n"
    squashed = await built(engine, Build(version=2, squash=True), lines)

    assert len((await engine.inspect(squashed.result.image_id)).layers) == 1


@pytest.mark.row("B12")
@pytest.mark.parametrize("kind", ["plain"])
async def test_squash_needs_an_experimental_engine(engine: Engine) -> None:
    assert not (await engine.info()).experimental
    for version in BOTH:
        with pytest.raises(Refused, match="only supported with experimental mode") as caught:
            await built(engine, Build(version=version, squash=True), SCRATCH)
        assert caught.value.status == 400


@pytest.mark.row("B14", "B15")
async def test_an_argument_that_nothing_uses_is_warned_of(engine: Engine) -> None:
    arguments = {"NOPE": "1", "NULL": None}
    heard = await built(engine, Build(build_args=arguments), SCRATCH + unique())
    quiet = await built(engine, Build(version=2, build_args=arguments), SCRATCH + unique())

    warning = next(line for line in heard.lines if "were not consumed" in line)
    assert "NOPE" in warning
    assert "NULL" in warning
    assert "were not consumed" not in "".join(quiet.pieces)


@pytest.mark.row("B16")
@pytest.mark.parametrize("version", BOTH)
async def test_labels_are_in_the_image(engine: Engine, version: int) -> None:
    labels = {"a": "1", "b": 'with "quotes" and $x'}
    heard = await built(engine, Build(version=version, labels=labels), SCRATCH + unique())

    assert (await engine.inspect(heard.result.image_id)).labels == labels


@pytest.mark.row("B19", "B20")
async def test_a_second_build_comes_from_the_cache_unless_told_otherwise(
    engine: Engine, base: str
) -> None:
    lines = f"FROM {base}\n{unique()}RUN cat /proc/sys/kernel/random/uuid >/u\n"
    first = await built(engine, Build(), lines)
    second = await built(engine, Build(), lines)
    third = await built(engine, Build(no_cache=True), lines)

    assert " ---> Using cache" in second.lines
    assert first.result == second.result
    assert " ---> Using cache" not in third.lines
    assert third.result != first.result


@pytest.mark.row("B21")
async def test_pull_asks_the_registry_in_any_case(engine: Engine, base: str, name: str) -> None:
    unreachable = f"127.0.0.1:1/{name}:1"
    await built(engine, Build(tags=(unreachable,)), f"FROM {base}\n{unique()}")
    lines = f"FROM {unreachable}\n{unique()}"

    assert (await built(engine, Build(), lines)).result.image_id
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:1"):
        await built(engine, Build(pull=True), lines)


@pytest.mark.row("B43", "B44")
async def test_a_failed_step_tells_its_exit_code_in_the_classic_builder(
    engine: Engine, base: str
) -> None:
    lines = f"FROM {base}\n{unique()}RUN exit 7\n"
    with pytest.raises(StreamError, match="returned a non-zero code: 7") as classic:
        await built(engine, Build(), lines)
    with pytest.raises(StreamError, match="exit code: 7") as buildkit:
        await built(engine, Build(version=2), lines)

    assert (classic.value.code, buildkit.value.code) == (7, None)


@pytest.mark.row("B41", "B42")
async def test_no_container_is_left_unless_wanted(engine: Engine, base: str) -> None:
    before = await containers(engine)
    lines = f"FROM {base}\n{unique()}RUN true\nRUN exit 1\n"
    with pytest.raises(StreamError):
        await built(engine, Build(), lines)
    assert await containers(engine) == before

    await posted(engine, "/build", [("nocache", "1")], tar({"Dockerfile": lines}))
    assert len(await containers(engine) - before) == 1
    await posted(engine, "/build", [("nocache", "1"), ("rm", "0")], tar({"Dockerfile": lines}))
    assert len(await containers(engine) - before) > 2


@pytest.mark.row("B45", "B47")
@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param(tar({"x": "y"}), "annot locate specified Dockerfile", id="no Dockerfile"),
        pytest.param(b"no archive" * 4096, "tar", id="no archive"),
    ],
)
async def test_the_classic_builder_refuses_with_a_status(
    engine: Engine, body: bytes, text: str
) -> None:
    with pytest.raises(Refused, match=text) as caught:
        await engine.run(Build(), pieces(body))
    assert caught.value.status == 500

    with pytest.raises(StreamError):
        await engine.run(Build(version=2), pieces(body))


@pytest.mark.row("B46", "B57")
@pytest.mark.parametrize("kind", ["old"])
async def test_a_body_beside_a_remote_context_makes_the_answer_empty(
    engine: Engine, name: str
) -> None:
    query = [("remote", "http://127.0.0.1:1/a.tar"), ("version", "2")]
    answer = await posted(engine, "/build", query, tar({"Dockerfile": SCRATCH}))

    assert (answer.status, answer.body) == (200, b"")
    with pytest.raises(StreamError):
        await engine.run(Build(version=2, remote="http://127.0.0.1:1/a.tar"))


@pytest.mark.row("B48")
@pytest.mark.parametrize("version", BOTH)
async def test_a_compressed_context_is_taken(engine: Engine, version: int) -> None:
    body = gzip.compress(tar({"Dockerfile": SCRATCH + unique()}))

    assert (await engine.run(Build(version=version), pieces(body))).image_id


@pytest.mark.row("B50", "B51")
@pytest.mark.parametrize("version", BOTH)
async def test_where_a_dockerfile_may_be(engine: Engine, version: int) -> None:
    lower = tar({"dockerfile": f"FROM scratch\n{unique()}LABEL a=1\n"})
    other = Build(version=version, dockerfile="sub/Df")
    first = await engine.run(Build(version=version), pieces(lower))
    second = await built(engine, other, f"FROM scratch\n{unique()}LABEL a=2\n")

    assert (await engine.inspect(first.image_id)).labels == {"a": "1"}
    assert (await engine.inspect(second.result.image_id)).labels == {"a": "2"}


@pytest.mark.row("B52")
async def test_a_dockerfile_is_inside_of_its_context(engine: Engine) -> None:
    outside, body = "../../etc/passwd", tar({"Dockerfile": SCRATCH})
    with pytest.raises(Refused, match="outside the build context"):
        await engine.run(Build(dockerfile=outside), pieces(body))
    with pytest.raises(StreamError):
        await engine.run(Build(version=2, dockerfile=outside), pieces(body))


@pytest.mark.row("B56")
async def test_a_form_would_eat_the_context(engine: Engine) -> None:
    body = tar({"Dockerfile": SCRATCH + unique(), "large": "x" * 300_000})
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    assert (await engine.run(Build(), pieces(body))).image_id
    answer = await posted(engine, "/build", [], body, form)
    assert answer.status == 500
    # Up to 28 a part of it is left to be read as an archive, from 29.5 on nothing.
    assert re.search("unexpected EOF|Cannot locate specified Dockerfile", answer.json()["message"])


@pytest.mark.row("B40")
async def test_quiet_is_the_id_alone_or_everything(engine: Engine, base: str) -> None:
    lines = f"FROM {base}\n{unique()}"
    good = await posted(engine, "/build", [("q", "1")], tar({"Dockerfile": lines}))
    bad = await posted(
        engine, "/build", [("q", "1")], tar({"Dockerfile": f"{lines}RUN echo hi && exit 3\n"})
    )

    assert json.loads(good.body)["stream"].startswith("sha256:")
    said = [json.loads(line) for line in bad.body.splitlines()]
    assert {"stream": "hi\n"} in said
    assert said[-1]["errorDetail"]["code"] == 3


@pytest.mark.row("B55")
async def test_builds_do_not_disturb_one_another(engine: Engine, base: str) -> None:
    async def one(number: int) -> tuple[int, dict[str, str]]:
        version = BOTH[number % 2]
        lines = f"FROM {base}\n{unique()}RUN echo {number} >/n\nLABEL n={number}\n"
        heard = await built(engine, Build(version=version), lines)
        return number, dict((await engine.inspect(heard.result.image_id)).labels)

    found = await asyncio.gather(*map(one, range(6)))

    assert {number: labels["n"] for number, labels in found} == {n: str(n) for n in range(6)}


@pytest.mark.row("B36")
async def test_an_output_of_cache_only_has_no_image(engine: Engine, kind: str) -> None:
    build = Build(version=2, outputs=(("cacheonly", {}),))
    if kind == "old":
        assert (await built(engine, build, SCRATCH)).result.image_id == ""
        return
    with pytest.raises(EngineError, match='exporter "" could not be found'):
        await built(engine, build, SCRATCH)


@pytest.mark.row("B37")
async def test_an_unknown_output_fails(engine: Engine) -> None:
    with pytest.raises(EngineError, match='exporter "nope" could not be found'):
        await built(engine, Build(version=2, outputs=(("nope", {}),)), SCRATCH)


@pytest.mark.parametrize("kind", LATEST)
async def test_nothing_is_left_of_a_build_that_failed(
    engine: Engine, base: str, name: str
) -> None:
    with pytest.raises(StreamError):
        await built(engine, Build(tags=(f"{name}:1",)), f"FROM {base}\n{unique()}RUN false\n")

    assert not await is_there(engine, f"{name}:1")
