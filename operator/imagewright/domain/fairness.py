"""Whose turn it is: fair between namespaces, by priority and age inside of one.

The namespace that holds the fewest slots goes first: max-min fairness over what is really held,
since a build may last for milliseconds or for an hour, and nobody knows before. Among those that
hold as many, the order is that of start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair
Queueing", SIGCOMM 1996; for many servers at once: Jin, Chase, Kaur, SIGMETRICS 2004): every
service moves a namespace's tag on by one, and one that comes back begins at the present virtual
time, so it neither saves up turns nor pays for its past. Deficit round robin would want to know
what a turn costs before it is taken.
"""

import bisect
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ticket:
    """A place in the queue. `key` is what should meet the same worker.

    `created` is RFC 3339, in whole seconds; `arrived` is the order within one second.
    """

    uid: str
    namespace: str
    priority: int = 0
    created: str = ""
    key: str = ""
    arrived: int = 0

    @property
    def age(self) -> tuple[str, int, str]:
        """The oldest has the lowest."""
        return (self.created, self.arrived, self.uid)

    @property
    def rank(self) -> tuple[int, tuple[str, int, str]]:
        """The order inside of a namespace: high priority first, then the oldest."""
        return (-self.priority, self.age)


@dataclass(slots=True)
class Shares:
    """What each namespace holds and was given."""

    _held: dict[str, int] = field(default_factory=dict)
    _tags: dict[str, int] = field(default_factory=dict)
    _now: int = 0

    def held(self, namespace: str) -> int:
        """Slots that the namespace has now."""
        return self._held.get(namespace, 0)

    def standing(self, namespace: str) -> tuple[int, int]:
        """Whoever stands lowest goes first."""
        return self.held(namespace), max(self._now, self._tags.get(namespace, 0))

    def serve(self, namespace: str, *, in_turn: bool = True) -> None:
        """The namespace is given a slot.

        Out of its turn, it moves no time on: whoever was passed over must not lose by it.
        """
        held, tag = self.standing(namespace)
        if in_turn:
            self._now = tag
        self._held[namespace], self._tags[namespace] = held + 1, tag + 1

    def give_back(self, namespace: str) -> None:
        """The namespace has one slot less."""
        self._held[namespace] -= 1
        if not self._held[namespace]:
            del self._held[namespace]
            # Tags of the past say nothing that the present virtual time does not.
            self._tags = {one: tag for one, tag in self._tags.items() if tag > self._now}


class Queue:
    """Tickets that wait, in the order in which they would be served."""

    def __init__(self) -> None:
        self.shares = Shares()
        self._waiting: dict[str, list[Ticket]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def depth(self, namespace: str) -> int:
        """How many of the namespace wait."""
        return len(self._waiting.get(namespace, ()))

    def add(self, ticket: Ticket) -> None:
        """Let the ticket wait."""
        tickets = self._waiting.setdefault(ticket.namespace, [])
        bisect.insort(tickets, ticket, key=lambda one: one.rank)

    def remove(self, ticket: Ticket) -> None:
        """It waits no more. Raises KeyError where it did not wait."""
        tickets = self._waiting[ticket.namespace]
        place = bisect.bisect_left(tickets, ticket.rank, key=lambda one: one.rank)
        if place == len(tickets) or tickets[place].uid != ticket.uid:
            raise KeyError(ticket.uid)
        del tickets[place]
        if not tickets:
            del self._waiting[ticket.namespace]

    def heads(self) -> Iterator[Sequence[Ticket]]:
        """The waiting of each namespace by rank; the namespace whose turn it is comes first."""
        return iter(sorted(self._waiting.values(), key=self._standing))

    def order(self) -> Iterator[Ticket]:
        """All that wait, as they would be served if nothing changed but slots that come free."""
        heap = [(*self._standing(tickets), tickets, 0) for tickets in self._waiting.values()]
        heapq.heapify(heap)
        while heap:
            held, tag, rank, tickets, index = heap[0]
            yield tickets[index]
            if index + 1 < len(tickets):
                heapq.heapreplace(heap, (held + 1, tag + 1, rank, tickets, index + 1))
            else:
                heapq.heappop(heap)

    def _standing(self, tickets: Sequence[Ticket]) -> tuple[int, int, tuple[str, int, str]]:
        first = tickets[0]
        return (*self.shares.standing(first.namespace), first.age)
