"""Questions to a real buildkitd that build nothing: what is below an image."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator

import pytest

from devstack import Stack
from imagewright.clients.buildkit import definition
from imagewright.clients.buildkit.control import Base, Control, Export, Solve
from imagewright.clients.buildkit.errors import SolveError, Unsupported


@pytest.fixture
async def control(buildkit: str) -> AsyncIterator[Control]:
    client = Control(buildkit)
    yield client
    await client.close()


def of(dockerfile: str, *exports: Export, **attrs: str) -> Solve:
    context = definition.files({"Dockerfile": dockerfile.encode(), "a": b"a"})
    inputs = {"context": context, "dockerfile": context}
    return Solve(secrets.token_hex(12), attrs=attrs, inputs=inputs, exports=exports)


async def config_of(control: Control, stack: Stack, name: str, dockerfile: str) -> Base:
    """Build and push an image; what its config says of itself."""
    export = Export("image", {"name": name, "push": "true"})
    await control.solve(of(dockerfile, export))
    text = (await crane(stack, "config", name)).decode()
    config = json.loads(text)
    return Base(
        tuple(config["rootfs"]["diff_ids"]), len(config["history"]), config["architecture"]
    )


async def crane(stack: Stack, *arguments: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        stack.binaries["crane"], *arguments, "--insecure", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


async def test_a_base_is_known_before_anything_is_built(control: Control, stack: Stack) -> None:
    name = f"{stack.registry}/gateway/base"
    text = f"FROM {stack.base_image}\nCOPY a /b\nENV X=1\nCOPY a /c\n"
    expected = await config_of(control, stack, name, text)
    assert len(expected.diff_ids) > 2
    fails = "RUN exit 7\n"

    for dockerfile in (
        f"FROM {name}\n{fails}COPY a /d\n",
        f"FROM {name} AS one\n{fails}FROM one AS two\n{fails}FROM two\nCOPY a /d\n",
        f"FROM scratch AS other\nCOPY a /\nFROM {name}\nCOPY --from=other a /\n",
        f"ARG BASE={name}\nFROM $BASE\n",
    ):
        assert await control.base_of(of(dockerfile)) == expected


async def test_the_result_begins_with_the_layers_of_its_base(
    control: Control, stack: Stack
) -> None:
    dockerfile = f"FROM {stack.base_image} AS one\nCOPY a /x\nFROM one\nCOPY a /y\n"
    base = await control.base_of(of(dockerfile))
    result = await config_of(control, stack, f"{stack.registry}/gateway/result", dockerfile)

    assert base is not None
    assert result.diff_ids[: len(base.diff_ids)] == base.diff_ids
    assert result.history == base.history + 2


@pytest.mark.parametrize("dockerfile", ["FROM scratch\nCOPY a /\n", "FROM scratch AS a\nFROM a\n"])
async def test_nothing_is_below_scratch(control: Control, dockerfile: str) -> None:
    assert await control.base_of(of(dockerfile)) is None


async def test_the_target_decides(control: Control, stack: Stack) -> None:
    dockerfile = f"FROM scratch AS a\nCOPY a /\nFROM {stack.base_image}\n"

    assert await control.base_of(of(dockerfile, target="a")) is None
    assert await control.base_of(of(dockerfile)) is not None


@pytest.mark.parametrize("dockerfile", ["NOPE\n", "FROM 127.0.0.1:1/nothing\n"])
async def test_a_question_about_nothing_fails_as_its_build_would(
    control: Control, dockerfile: str
) -> None:
    with pytest.raises(SolveError):
        await control.base_of(of(dockerfile))
    assert await control.base_of(of("FROM scratch\nCOPY a /\n")) is None


@pytest.mark.parametrize(
    "attrs", [{"platform": "linux/amd64,linux/arm64"}, {"multi-platform": "true"}]
)
async def test_several_platforms_are_refused(control: Control, attrs: dict[str, str]) -> None:
    with pytest.raises(Unsupported, match="one at a time"):
        await control.base_of(of("FROM scratch\n", **attrs))
