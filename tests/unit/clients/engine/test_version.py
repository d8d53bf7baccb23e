"""Agreeing on a version, and what kind of engine there is."""

from typing import Any

import pytest

from imagewright.clients.engine.errors import EngineError, Unsupported
from imagewright.clients.engine.version import (
    NEWEST,
    Info,
    Version,
    native_grpc,
    negotiate,
    read_info,
)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(
            {"Api-Version": "1.41", "Docker-Experimental": "true"},
            Version((1, 41), experimental=True),
            id="an old engine",
        ),
        pytest.param(
            {"Api-Version": "1.51", "Docker-Experimental": "false", "Builder-Version": "2"},
            Version((1, 51), builder=2),
            id="one of today",
        ),
        pytest.param({"Api-Version": "1.999"}, Version(NEWEST), id="one of tomorrow"),
        pytest.param(
            {"Api-Version": "1.41", "Builder-Version": "x"}, Version((1, 41)), id="odd advice"
        ),
    ],
)
def test_the_newest_that_both_know_is_spoken(headers: dict[str, str], expected: Version) -> None:
    assert negotiate(headers) == expected


def test_versions_are_numbers() -> None:
    assert negotiate({"Api-Version": "1.100"}).prefix == "/v1.56"
    assert negotiate({"Api-Version": "1.44"}).prefix == "/v1.44"


def test_too_old_an_engine_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"it speaks API 1\.9,"):
        negotiate({"Api-Version": "1.9"})


@pytest.mark.parametrize("headers", [{}, {"Api-Version": ""}, {"Api-Version": "1.x"}])
def test_what_names_no_version_is_no_engine(headers: dict[str, str]) -> None:
    with pytest.raises(EngineError, match="no engine"):
        negotiate(headers)


@pytest.mark.parametrize(("api", "native"), [((1, 52), False), ((1, 53), True), ((1, 56), True)])
def test_newer_engines_speak_grpc_without_an_upgrade(api: tuple[int, int], native: bool) -> None:
    assert native_grpc(Version(api)) is native


@pytest.mark.parametrize(
    ("status", "containerd"),
    [
        pytest.param([["driver-type", "io.containerd.snapshotter.v1"]], True, id="containerd"),
        pytest.param([["Backing Filesystem", "extfs"]], False, id="a graph driver"),
        pytest.param(None, False, id="not told"),
    ],
)
def test_the_kind_of_store(status: Any, containerd: bool) -> None:
    found = {"ID": "i", "Name": "n", "ServerVersion": "28.5.2", "DriverStatus": status}

    assert read_info({**found, "ExperimentalBuild": True, "NCPU": 2, "MemTotal": 9}) == Info(
        "i", "n", "28.5.2", containerd_store=containerd, experimental=True, cpus=2, memory=9
    )
