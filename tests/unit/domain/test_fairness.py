"""Who goes next: between namespaces, and inside of one."""

from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewright.domain.fairness import Queue, Ticket


def tickets(*words: str) -> list[Ticket]:
    """Such as `a1` or `a2!5`: namespace a, the second to come, priority 5."""
    found = []
    for word in words:
        name, _, priority = word.partition("!")
        found.append(Ticket(word, name[0], int(priority or 0), name[1:].zfill(4)))
    return found


def served(queue: Queue, held: str = "") -> list[str]:
    """All that wait, one by one as they are served while nothing comes free."""
    went = []
    while len(queue):
        ticket = next(queue.heads())[0]
        queue.remove(ticket)
        queue.shares.serve(ticket.namespace)
        went.append(ticket.uid)
    return went


ORDERS = {
    "of one namespace the oldest goes first": (("a2", "a3", "a1"), "", "a1 a2 a3"),
    "a higher priority goes before an older one": (("a1", "a2!5", "a3!5"), "", "a2!5 a3!5 a1"),
    "two namespaces take turns, whoever came first": (
        ("a1", "a2", "a3", "b4", "b5"),
        "",
        "a1 b4 a2 b5 a3",
    ),
    "a priority counts only inside of its namespace": (
        ("a1", "b2!9", "b3!9"),
        "",
        "a1 b2!9 b3!9",
    ),
    "who holds slots lets go first who holds none": (
        ("a1", "a2", "b3", "b4"),
        "aa",
        "b3 b4 a1 a2",
    ),
    "one that waits for one build goes right after the next": (
        ("a1", "a2", "a3", "a4", "c9"),
        "a",
        "c9 a1 a2 a3 a4",
    ),
}


@pytest.mark.parametrize(("words", "held", "expected"), ORDERS.values(), ids=list(ORDERS))
def test_the_order(words: tuple[str, ...], held: str, expected: str) -> None:
    queue = Queue()
    for namespace in held:
        queue.shares.serve(namespace)
    for ticket in tickets(*words):
        queue.add(ticket)
    assert " ".join(ticket.uid for ticket in queue.order()) == expected
    assert " ".join(served(queue)) == expected


def test_one_that_leaves_is_not_in_the_order_and_cannot_leave_twice() -> None:
    queue, (first, second, third) = Queue(), tickets("a1", "a2", "b3")
    for ticket in (first, second, third):
        queue.add(ticket)
    queue.remove(first)
    assert [ticket.uid for ticket in queue.order()] == ["a2", "b3"]
    assert (len(queue), queue.depth("a"), queue.depth("c")) == (2, 1, 0)
    for gone in (first, Ticket("a9", "a"), Ticket("z", "z")):
        with pytest.raises(KeyError):
            queue.remove(gone)


def test_a_namespace_that_was_away_has_saved_up_nothing() -> None:
    queue = Queue()
    for number in range(40):
        queue.add(Ticket(f"a{number:03}", "a"))
    for _ in range(20):
        queue.remove(next(queue.heads())[0])
        queue.shares.serve("a")
        queue.shares.give_back("a")
    for number in range(20):
        queue.add(Ticket(f"b{number:03}", "b"))
    went = served(queue)
    assert Counter(uid[0] for uid in went[:10]) == {"a": 5, "b": 5}


@dataclass
class Simulation:
    """Slots that builds of random length hold, and in which order they were let in."""

    slots: int
    random: Random
    queue: Queue = field(default_factory=Queue)
    running: deque[str] = field(default_factory=deque)
    ended: int = 0
    went: list[tuple[str, int]] = field(default_factory=list)

    def step(self) -> None:
        """Fill the free slots; then one build, any one, ends."""
        while len(self.running) < self.slots and len(self.queue):
            ticket = next(self.queue.heads())[0]
            self.queue.remove(ticket)
            self.queue.shares.serve(ticket.namespace)
            self.running.append(ticket.namespace)
            self.went.append((ticket.uid, self.ended))
        self.running.rotate(self.random.randrange(self.slots))
        self.queue.shares.give_back(self.running.popleft())
        self.ended += 1


@given(st.integers(1, 16), st.integers(0, 200), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_one_build_waits_for_slots_and_one_completions_at_most(
    slots: int, before: int, random: Random
) -> None:
    world = Simulation(slots, random)
    for number in range(1000):
        world.queue.add(Ticket(f"crowd-{number:04}", "crowd", random.randrange(3), "0"))
    for _ in range(before):
        world.step()
    came = world.ended
    world.queue.add(Ticket("late", "alone", 0, "9"))
    while world.went[-1:] == [] or all(uid != "late" for uid, _ in world.went):
        world.step()
    entered = next(ended for uid, ended in world.went if uid == "late")
    assert entered - came <= slots + 1


@given(
    st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=120),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60)
def test_everybody_goes_once_and_no_namespace_holds_more_than_its_share(
    namespaces: list[str], slots: int, random: Random
) -> None:
    world = Simulation(slots, random)
    for number, namespace in enumerate(namespaces):
        world.queue.add(Ticket(f"{namespace}{number:03}", namespace, random.randrange(2)))
    while len(world.queue):
        waiting = {ticket.namespace for ticket in world.queue.order()}
        world.step()
        still = {ticket.namespace for ticket in world.queue.order()} & waiting
        held = [world.queue.shares.held(one) for one in still]
        # One ended since the slots were filled, and it may have been anybody's.
        assert not held or max(held) - min(held) <= 2
    while world.running:
        world.step()
    assert sorted(uid for uid, _ in world.went) == sorted(
        f"{namespace}{number:03}" for number, namespace in enumerate(namespaces)
    )
    assert world.queue.shares.held("a") == 0
