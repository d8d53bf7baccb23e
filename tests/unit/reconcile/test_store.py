"""What is known of the builds, whatever order the news comes in."""

from itertools import permutations
from typing import Any

import pytest

from imagewright.reconcile import store as module
from imagewright.reconcile.store import BUILDS, Misread, Store, settled
from tests.support.makers import UID, a_body

DONE = {"phase": "Succeeded", "observedGeneration": 1}


def over(version: str, **metadata: Any) -> dict[str, Any]:
    """A version of the object after its end."""
    return {**a_body(resourceVersion=version, **metadata), "status": DONE}


@pytest.mark.parametrize(
    ("body", "is_over"),
    [
        (a_body(), False),
        (over("2"), True),
        (over("2", generation=2), False),
        ({**over("2"), "spec": {"ttlSecondsAfterFinished": 0}}, False),
        ({**over("2"), "status": {"phase": "Running", "observedGeneration": 1}}, False),
        ({**over("2"), "status": {"phase": "Suspended", "observedGeneration": 1}}, False),
        ({**over("2"), "status": None}, False),
    ],
    ids=[
        "one that nobody has looked at is not over",
        "one that has ended is",
        "one that was edited since is not",
        "one that must be deleted later is not",
        "one that runs is not",
        "one that is held back is not",
        "one without a status is not",
    ],
)
def test_what_can_change_only_by_an_edit_is_over(body: dict[str, Any], is_over: bool) -> None:
    assert settled(body) is is_over


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_the_newest_version_stands_in_whatever_order_they_came(order: tuple[int, ...]) -> None:
    versions = [
        a_body({"target": f"t{number}"}, resourceVersion=str(9 + number)) for number in order
    ]
    store = Store(BUILDS, lambda _: None)
    for body in [*versions, *versions]:
        store.see(body)
    build = store.get(UID)
    assert build is not None
    assert build.spec.target == "t3"


def test_versions_are_compared_as_numbers_not_as_texts() -> None:
    store = Store(BUILDS, lambda _: None)
    assert store.see(a_body(resourceVersion="9"))
    assert store.see(a_body(resourceVersion="10"))
    assert not store.see(a_body(resourceVersion="9"))


@pytest.mark.row("F8")
def test_builds_that_are_over_at_the_start_wake_nobody() -> None:
    woken: list[str] = []
    store = Store(BUILDS, woken.append)
    for number in range(1000):
        assert not store.see(over("5", uid=str(number)))
    assert (woken, store.uids()) == ([], frozenset())


def test_an_answer_to_our_own_write_wakes_nobody() -> None:
    woken: list[str] = []
    store = Store(BUILDS, woken.append)
    assert store.keep(a_body(resourceVersion="5"))
    assert store.uids() == {UID}
    assert woken == []


def test_an_edit_of_a_build_that_is_over_is_news() -> None:
    woken: list[str] = []
    store = Store(BUILDS, woken.append)
    store.see(a_body(resourceVersion="5"))
    assert store.see(over("6"))
    assert store.get(UID) is None
    assert store.see({**over("7", generation=2)})
    assert woken == [UID, UID, UID]


def test_a_build_that_vanished_wakes_whoever_works_on_it() -> None:
    woken: list[str] = []
    store = Store(BUILDS, woken.append)
    store.see(a_body())
    store.drop(UID)
    store.drop("never heard of")
    assert store.get(UID) is None
    assert woken == [UID, UID, "never heard of"]


@pytest.mark.row("F73")
def test_an_object_that_is_not_understood_is_left_alone_and_the_next_is_not() -> None:
    woken: list[str] = []
    store = Store(BUILDS, woken.append)
    odd = a_body({"ofAnotherVersion": "s3cret"}, uid="odd")
    for _ in range(2):
        assert not store.see(odd)
    assert store.see(a_body(uid="plain"))
    assert store.uids() == {"plain", "odd"}
    assert woken == ["odd", "plain"]
    with pytest.raises(Misread) as caught:
        store.must_be_understood("odd")
    assert str(caught.value) == "spec.ofAnotherVersion: Extra inputs are not permitted"
    store.must_be_understood("plain")


@pytest.mark.row("F73")
@pytest.mark.parametrize("news", ["mended", "over", "gone"])
def test_an_object_that_was_not_understood_is_forgotten_as_such(news: str) -> None:
    store = Store(BUILDS, lambda _: None)
    store.see(a_body({"ofAnotherVersion": True}))
    match news:
        case "mended":
            store.see(a_body(resourceVersion="2"))
        case "over":
            store.see(over("2"))
        case _:
            store.drop(UID)
    store.must_be_understood(UID)
    assert store.uids() == ({UID} if news == "mended" else set())


def test_so_many_ends_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    store = Store(BUILDS, lambda _: None)
    for number in range(9):
        store.see(a_body(uid=str(number), resourceVersion="5"))
        store.keep(over("6", uid=str(number)))
    assert len(store._over) == 3
    assert not store.see(a_body(uid="8", resourceVersion="5"))
