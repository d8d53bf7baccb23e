"""What an EndpointSlice says, in every form that discovery.k8s.io/v1 allows."""

from typing import Any

import pytest

from imagewright.kube.endpointslice import EndpointSlice, united
from imagewright.ports import Endpoint

PORTS = [{"name": "buildkit", "port": 1234}, {"name": "metrics", "port": 9000}]
GOOD = {"ready": True, "serving": True, "terminating": False}
POD = {"kind": "Pod", "namespace": "ci", "name": "bk-0", "uid": "u"}
BK_0 = Endpoint("bk-0", "10.0.0.1:1234")


def a_slice(*entries: dict[str, Any], ports: Any = PORTS) -> EndpointSlice:
    """A slice of these endpoints, as the API server sends it."""
    metadata = {"name": "bk-x", "resourceVersion": "7", "uid": "u"}
    body = {"metadata": metadata, "addressType": "IPv4", "endpoints": entries, "ports": ports}
    return EndpointSlice.model_validate(body)


def entry(conditions: Any = GOOD, target: Any = POD, address: str = "10.0.0.1") -> dict[str, Any]:
    """An endpoint that is good unless it says otherwise."""
    return {"addresses": [address], "conditions": conditions, "targetRef": target}


CONDITIONS = {
    "ready": (GOOD, True),
    "nothing said: it is ready": (None, True),
    "ready is null: it is": ({"ready": None, "serving": None, "terminating": None}, True),
    "not ready": ({"ready": False, "serving": False, "terminating": False}, False),
    "terminating and still serving": (
        {"ready": False, "serving": True, "terminating": True},
        False,
    ),
    "terminating and said to be ready, as unready addresses are published": (
        {"ready": True, "serving": True, "terminating": True},
        False,
    ),
    "ready, its end null": ({"ready": True, "terminating": None}, True),
}


@pytest.mark.parametrize(("conditions", "usable"), CONDITIONS.values(), ids=CONDITIONS)
def test_who_is_usable(conditions: Any, usable: bool) -> None:
    found = a_slice(entry(conditions)).workers("buildkit")
    assert found == (frozenset({BK_0}) if usable else frozenset())


PORT = {
    "by its name": ("buildkit", PORTS, 1234),
    "by its number": ("9000", PORTS, 9000),
    "a name of digits counts before a number": (
        "80",
        [{"name": "a", "port": 80}, {"name": "80", "port": 8080}],
        8080,
    ),
    "the one that has no name": ("", [{"port": 1234}], 1234),
    "no such name": ("grpc", PORTS, None),
    "no such number": ("1235", PORTS, None),
    "a number, and the Service names no ports": ("1234", [], 1234),
    "a number, and the ports are null": ("1234", None, 1234),
    "a number, and every port is open": ("1234", [{"name": "", "port": None}], 1234),
    "a name, and the Service names no ports": ("buildkit", [], None),
}


@pytest.mark.parametrize(("wanted", "ports", "number"), PORT.values(), ids=PORT)
def test_which_port(wanted: str, ports: Any, number: int | None) -> None:
    assert a_slice(ports=ports).port(wanted) == number
    found = {one.address for one in a_slice(entry(), ports=ports).workers(wanted)}
    assert found == ({f"10.0.0.1:{number}"} if number else set())


NAMES = {
    "a Pod's name": (entry(), BK_0),
    "no object behind it: the address": (
        entry(target=None),
        Endpoint("10.0.0.1:1234", "10.0.0.1:1234"),
    ),
    "an object that is no Pod: the address": (
        entry(target={"kind": "Node", "name": "n"}),
        Endpoint("10.0.0.1:1234", "10.0.0.1:1234"),
    ),
    "IPv6 in brackets": (entry(address="fd00::1"), Endpoint("bk-0", "[fd00::1]:1234")),
    "a host's name": (
        entry(address="bk.example", target=None),
        Endpoint("bk.example:1234", "bk.example:1234"),
    ),
    "of several addresses the first": (
        {**entry(), "addresses": ["10.0.0.1", "10.0.0.2"]},
        BK_0,
    ),
}


@pytest.mark.parametrize(("one", "endpoint"), NAMES.values(), ids=NAMES)
def test_name_and_address(one: dict[str, Any], endpoint: Endpoint) -> None:
    assert a_slice(one).workers("buildkit") == {endpoint}


@pytest.mark.parametrize("endpoints", [None, []], ids=["null", "empty"])
def test_a_slice_without_endpoints_has_no_workers(endpoints: Any) -> None:
    body = {"metadata": {"name": "x", "resourceVersion": "1"}, "endpoints": endpoints}
    assert EndpointSlice.model_validate(body).workers("1234") == frozenset()


UNIONS = {
    "one in each": (
        [{BK_0}, {Endpoint("bk-1", "10.0.0.2:1234")}],
        {"10.0.0.1:1234", "10.0.0.2:1234"},
    ),
    "the same in two": ([{BK_0}, {BK_0}], {"10.0.0.1:1234"}),
    "a Pod of two address families: IPv4": (
        [{Endpoint("bk-0", "[fd00::1]:1234")}, {BK_0}],
        {"10.0.0.1:1234"},
    ),
    "a Pod with an address it had before: one of the two": (
        [{Endpoint("bk-0", "10.0.0.9:1234")}, {BK_0}],
        {"10.0.0.1:1234"},
    ),
    "no slices": ([], set()),
}


@pytest.mark.parametrize(("slices", "addresses"), UNIONS.values(), ids=UNIONS)
def test_a_union_has_each_name_once(slices: list[set[Endpoint]], addresses: set[str]) -> None:
    for order in (slices, slices[::-1]):
        assert {one.address for one in united(map(frozenset, order))} == addresses
