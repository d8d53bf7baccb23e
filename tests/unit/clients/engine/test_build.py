"""A build request, and what its stream comes to."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from imagewright.clients.engine.auth import FOR_BUILD, Login
from imagewright.clients.engine.build import Build, Result, drain
from imagewright.clients.engine.errors import NoResult, Unsupported
from imagewright.clients.engine.stream import Aux, Message, Output, Trace

ALWAYS = {"version": "1", "dockerfile": "Dockerfile", "rm": "1", "forcerm": "1"}


def query(build: Build) -> dict[str, Any]:
    """The parameters; those that repeat as lists."""
    found: dict[str, Any] = {}
    for name, value in build.query():
        if name in {"t", "extrahosts"}:
            found.setdefault(name, []).append(value)
        else:
            assert name not in found
            found[name] = value
    return found


async def said(*given: Message) -> AsyncIterator[Message]:
    for message in given:
        yield message


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        pytest.param(Build(), {}, id="nothing is sent that is not asked for"),
        pytest.param(Build(version=2), {"version": "2"}, id="BuildKit"),
        pytest.param(Build(tags=("b:1", "a:2")), {"t": ["b:1", "a:2"]}, id="tags in order"),
        pytest.param(
            Build(no_cache=True, pull=True, squash=True),
            {"nocache": "1", "pull": "1", "squash": "1"},
            id="truths",
        ),
        pytest.param(
            Build(target="t", platform="linux/arm64", network="none", dockerfile="a/D"),
            {"target": "t", "platform": "linux/arm64", "networkmode": "none", "dockerfile": "a/D"},
            id="texts",
        ),
        pytest.param(
            Build(extra_hosts=(("a", "10.0.0.1"), ("b", "::1"), ("c", "host-gateway"))),
            {"extrahosts": ["a:10.0.0.1", "b:::1", "c:host-gateway"]},
            id="extra hosts",
        ),
        pytest.param(
            Build(
                shm_size=1 << 20,
                limits={"memory": 5, "memswap": -1, "cpushares": 2, "cpusetcpus": "0-1,3"},
            ),
            {
                "shmsize": "1048576",
                "memory": "5",
                "memswap": "-1",
                "cpushares": "2",
                "cpusetcpus": "0-1,3",
            },
            id="limits",
        ),
        pytest.param(
            Build(version=2, remote="http://c.test/a.tar", build_id="b", session="s"),
            {"version": "2", "remote": "http://c.test/a.tar", "buildid": "b", "session": "s"},
            id="a remote context",
        ),
    ],
)
def test_the_query_says_what_is_asked_for(build: Build, expected: dict[str, Any]) -> None:
    assert query(build) == {**ALWAYS, **expected}


@pytest.mark.parametrize(
    ("build", "name", "expected"),
    [
        pytest.param(
            Build(build_args={"A": "1", "B": None}),
            "buildargs",
            {"A": "1", "B": None},
            id="build arguments, one without a value",
        ),
        pytest.param(Build(labels={"a": "b"}), "labels", {"a": "b"}, id="labels"),
        pytest.param(Build(cache_from=("a", "b")), "cachefrom", ["a", "b"], id="caches"),
        pytest.param(
            Build(ulimits=(("nofile", 5, 6), ("core", -1, -1))),
            "ulimits",
            [
                {"Name": "nofile", "Soft": 5, "Hard": 6},
                {"Name": "core", "Soft": -1, "Hard": -1},
            ],
            id="ulimits",
        ),
        pytest.param(
            Build(version=2, outputs=(("moby", {"push": "true"}),)),
            "outputs",
            [{"Type": "moby", "Attrs": {"push": "true"}}],
            id="an output",
        ),
    ],
)
def test_some_parameters_are_json(build: Build, name: str, expected: object) -> None:
    assert json.loads(query(build)[name]) == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param({"version": 3}, "no builder 3", id="a builder that is none"),
        pytest.param({"dockerfile": ""}, "needs the path", id="no Dockerfile"),
        pytest.param({"tags": ("a", "")}, "without a name", id="an empty tag"),
        pytest.param({"cache_from": ("",)}, "without a name", id="an empty cache"),
        pytest.param({"platform": "a/b,c/d"}, "one platform", id="several platforms"),
        pytest.param(
            {"version": 2, "outputs": (("moby", {}), ("tar", {}))}, "one output", id="two outputs"
        ),
        pytest.param({"outputs": (("moby", {}),)}, "overlooks outputs", id="an output of classic"),
        pytest.param({"session": "s"}, "overlooks session", id="a session of classic"),
        pytest.param({"build_id": "b"}, "overlooks build_id", id="an id to cancel classic by"),
        pytest.param(
            {"version": 2, "limits": {"memory": 1}},
            "BuildKit overlooks limits",
            marks=pytest.mark.row("B23"),
            id="limits for BuildKit",
        ),
        pytest.param(
            {"version": 2, "registries": {"r": Login("a", "b")}},
            "BuildKit overlooks registries",
            id="logins for BuildKit",
        ),
        pytest.param(
            {"limits": {"memory": "512m"}},
            "overlook the limit memory='512m'",
            marks=pytest.mark.row("B26"),
            id="a memory limit that is no number",
        ),
        pytest.param({"limits": {"memory": True}}, "memory=True", id="a truth for a number"),
        pytest.param({"limits": {"memory": -1}}, "memory=-1", id="less memory than none"),
        pytest.param({"limits": {"cpus": 1}}, "cpus=1", id="a limit that is none"),
        pytest.param({"limits": {"cpusetcpus": "all"}}, "cpusetcpus", id="a set that is none"),
        pytest.param({"limits": {"cpusetcpus": 1}}, "cpusetcpus", id="a number for a set"),
        pytest.param({"shm_size": -1}, "-1 bytes", id="less shared memory than none"),
        pytest.param({"ulimits": (("no file", 1, 1),)}, "no ulimit", id="an ulimit's name"),
        pytest.param({"ulimits": (("core", -2, 1),)}, "no ulimit", id="an ulimit's value"),
        pytest.param({"extra_hosts": (("a", "b"),)}, "a:b is no", id="a host without an address"),
        pytest.param({"extra_hosts": (("", "::1"),)}, "is no", id="an address without a host"),
        pytest.param({"extra_hosts": (("a:b", "::1"),)}, "is no", id="a colon in a host"),
    ],
)
def test_what_the_engine_would_overlook_is_refused(options: Mapping[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Build(**options)


@pytest.mark.parametrize("option", [{"shm_size": 1}, {"ulimits": (("core", 1, 1),)}])
def test_older_engines_overlook_the_sandbox_of_buildkit(option: Mapping[str, Any]) -> None:
    Build(version=2, **option).check((1, 42))
    Build(version=1, **option).check((1, 41))
    with pytest.raises(Unsupported, match=r"speaks 1\.41"):
        Build(version=2, **option).check((1, 41))


@pytest.mark.row("B56")
def test_a_context_is_an_archive_and_no_form() -> None:
    assert Build().headers() == {"Content-Type": "application/x-tar"}


def test_logins_go_in_a_header_and_are_not_shown() -> None:
    build = Build(registries={"r.test": Login("me", "s3cret")}, build_args={"T": "s3cret"})

    assert FOR_BUILD in build.headers()
    assert "s3cret" not in repr(build)


@pytest.mark.parametrize(
    ("version", "given", "expected"),
    [
        pytest.param(
            1,
            [Aux("", {"ID": "a"}), Output("Successfully built"), Aux("", {"ID": "b"})],
            "b",
            id="classic: the last one is the image",
        ),
        pytest.param(
            1,
            [Aux("", {"ID": "a"}), Aux("moby.image.id", {"ID": "squashed"})],
            "squashed",
            id="classic: squash comes after it",
        ),
        pytest.param(1, [Aux("", {"ID": "a"}), Aux("", {"x": 1})], "a", id="other facts are not"),
        pytest.param(
            2,
            [Trace(b""), Aux("moby.image.id", {"ID": "a"}), Trace(b"")],
            "a",
            id="BuildKit: it may come before the last of the progress",
        ),
        pytest.param(
            2,
            [Aux("moby.image.id", {"ID": "a"}), Aux("other", {"ID": "b"})],
            "a",
            id="BuildKit: it has a name",
        ),
    ],
)
async def test_the_image_is_told_in_the_stream(
    version: int, given: list[Message], expected: str
) -> None:
    assert await drain(Build(version=version), said(*given)) == Result(expected)


async def test_what_is_printed_is_heard() -> None:
    heard: list[str] = []
    await drain(Build(), said(Output("a"), Aux("", {"ID": "b"}), Output("c")), heard.append)

    assert heard == ["a", "c"]


@pytest.mark.row("B46")
@pytest.mark.parametrize("version", [1, 2])
async def test_a_stream_without_image_and_error_is_a_failure(version: int) -> None:
    with pytest.raises(NoResult):
        await drain(Build(version=version), said(Output("Step 1/1"), Trace(b"")))


@pytest.mark.parametrize("kind", ["cacheonly", "local", "tar"])
async def test_an_output_elsewhere_has_no_image(kind: str) -> None:
    build = Build(version=2, outputs=((kind, {}),))

    assert await drain(build, said(Trace(b""))) == Result("")


@pytest.mark.parametrize("kind", ["moby", "image"])
async def test_an_output_in_the_engine_has_one(kind: str) -> None:
    with pytest.raises(NoResult):
        await drain(Build(version=2, outputs=((kind, {}),)), said(Trace(b"")))
