"""What the shell asks of the world, and the words in which the world says no.

```
Error
├── Unavailable      nobody answered, or the wire broke: the same call may pass later
│   ├── Missing      what the object names is not there yet
│   └── Fenced       this process does not lead: it may write nothing
├── Rejected         it will never be accepted as it is written
├── Failed           it ran and broke: the user's to mend
└── Conflict         somebody else was first: look again
    └── Gone         the object is not there any more
```
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from imagewright.api.reason import Reason
from imagewright.domain.credential import Login
from imagewright.domain.notice import Notice
from imagewright.domain.outcome import Built, Pushed
from imagewright.domain.plan import Git, Oci, Order, Plan, Source
from imagewright.domain.progress import Advance
from imagewright.domain.prune import Policy, Reclaimed
from imagewright.domain.reference import Reference


class Error(Exception):
    """Base of all that the world may say no with. `message` is a sentence for the user."""

    after: float = 0.0
    """Seconds before which it must not be asked again; 0 where nobody said so."""

    def __init__(self, message: str, reason: Reason = Reason.BUILD_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.built: Built | None = None


class Unavailable(Error):
    """Nobody answered, or the wire broke."""

    def __init__(self, message: str, reason: Reason = Reason.BUILDER_UNAVAILABLE) -> None:
        super().__init__(message, reason)


class Missing(Unavailable):
    """A Secret or ConfigMap that is named is not there, or has no such key, yet."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Reason.SECRET_NOT_FOUND)


class Fenced(Unavailable):
    """This process does not lead now: nothing was written, or nobody may act on it."""


class Rejected(Error):
    """It will never be accepted as it is written."""


class Failed(Error):
    """It ran and broke. `step` is the id of the step, as in the progress reports."""

    step: str = ""
    line: int | None = None
    exit_code: int | None = None

    def at(self, step: str, line: int | None, exit_code: int | None) -> "Failed":
        """The same failure, with where it happened."""
        self.step, self.line, self.exit_code = step, line, exit_code
        return self


class Conflict(Error):
    """Somebody else wrote first."""


class Gone(Conflict):
    """The object is not there any more."""


Report = Callable[[Advance], None]
"""Takes what a running build says of itself; called in the event loop, must not block."""
Body = Mapping[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Fetched files: where they are, and what they are: a commit, or a digest."""

    path: Path
    revision: str


@dataclass(frozen=True, slots=True)
class Subject:
    """The object that something is told of; `namespace` is empty where the kind is in none."""

    kind: str
    namespace: str
    name: str
    uid: str


class Notices(Protocol):
    """Tells people what became of objects."""

    def tell(self, subject: Subject, notice: Notice, now: datetime) -> None:
        """Pass it on, soon and if it can be; never waits, never fails."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a worker is. The name outlives the address: a Pod that comes back has a new one."""

    name: str
    """Of the Pod; the address where there is no Pod."""
    address: str
    """host:port, an IPv6 host in brackets."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How many workers are asked for, and the version of the object that says so."""

    replicas: int
    version: str


class WorkerSet(Protocol):
    """Workers that are made and unmade by number: those from 0 up to the number are there.

    Calls raise Unavailable where the cluster does not answer.
    """

    async def scale(self) -> Scale:
        """How many there should be. Raises Gone."""
        ...

    async def resize(self, seen: Scale, replicas: int) -> Scale:
        """Ask for so many; a smaller number takes away the highest.

        Raises Conflict where something was written since `seen`, Gone.
        """
        ...

    async def hold(self, ordinal: int) -> None:
        """Ask that nobody moves this worker off its node. One that is gone is fine."""
        ...

    async def release(self, ordinal: int) -> None:
        """Take that back. One that is gone is fine."""
        ...


class Keyring(Protocol):
    """The Secrets of one attempt, from its own namespace.

    In a cluster, what was read once stays as it was for the whole attempt.
    """

    async def secret(self, name: str) -> Mapping[str, bytes]:
        """The entries of a Secret. Raises Missing, Unavailable."""
        ...

    async def config(self, name: str) -> Mapping[str, bytes]:
        """The entries of a ConfigMap. Raises Missing, Unavailable."""
        ...

    async def logins(self) -> Mapping[str, Login]:
        """All of them, by the registry's host. Raises what `login` raises."""
        ...

    def masks(self) -> frozenset[str]:
        """Values that were read so far, to be kept out of all that is shown."""
        ...

    async def login(self, host: str) -> Login | None:
        """Who the build is in the registry at `host` (with its port), or None: nobody.

        Raises Missing, Unavailable; Rejected (InvalidCredentials) where a Secret cannot be read.
        """
        ...


class WatchedKeyring(Keyring, Protocol):
    """A keyring that can tell when what it has read is out of date."""

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed`, once, when something is not any more as it was read, or found missing.

        It is noticed within about a second, unless very much is waited for. Who calls the answer
        is not told any more.
        """
        ...


class ImageStore(Protocol):
    """Where built images lie, and get their names."""

    async def squash(self, built: Built, keyring: Keyring) -> Built:
        """The image with all layers above `built.base` merged into one; the old one stays.

        Raises Failed (SquashFailed), Unavailable.
        """
        ...

    async def tag(self, built: Built, name: Reference, keyring: Keyring) -> Pushed:
        """Let `name` stand for the image in its registry, whatever it stood for before.

        Raises Failed, Rejected or Unavailable.
        """
        ...

    async def holds(self, name: Reference, keyring: Keyring) -> str:
        """The digest that `name` stands for in its registry now; empty where that is not known.

        Raises Unavailable, Failed.
        """
        ...


class Sources(Protocol):
    """Contexts that the operator itself fetches, kept by content."""

    async def resolve(self, source: Git | Oci, keyring: Keyring) -> Git | Oci:
        """The source with the commit or digest that its name stands for now.

        Raises Failed (SourceUnavailable) where there is none, Missing, Unavailable.
        """
        ...

    def tree(self, source: Source, keyring: Keyring) -> AbstractAsyncContextManager[Tree]:
        """The source's files in a folder that stays until the context is left.

        Raises Failed (SourceUnavailable), Missing, Unavailable.
        """
        ...


class Cache(Protocol):
    """Something on a disk that prune empties."""

    async def prune(self, policy: Policy) -> Reclaimed:
        """Free what the policy asks for; what is in use stays. Raises Unavailable, Rejected."""
        ...

    async def usage(self) -> int:
        """Bytes that it holds now. Raises Unavailable."""
        ...


class Builder(Protocol):
    """One way to turn an Order into an image. To cancel, cancel the task that awaits it."""

    def lacks(self, plan: Plan) -> str:
        """What such a plan asks for and this builder can never do here; empty where it can all."""
        ...

    def fetches(self, source: Source) -> bool:
        """Whether the daemon fetches such a source by itself; else it is given the files."""
        ...

    async def resolve(self, source: Git, keyring: Keyring) -> Git:
        """The source with the commit that its revision stands for now.

        Raises Failed where there is no such revision, Unavailable where the builder is not there.
        """
        ...

    async def build(self, order: Order, keyring: Keyring, report: Report) -> Built:
        """Build the order; a builder that pushes by itself gives it every one of its names.

        Raises Failed, Rejected or Unavailable. Once cancelled, nothing more is pushed.
        """
        ...


class Backend(Protocol):
    """What a worker offers: plans resolved and built on its daemon."""

    def lacks(self, plan: Plan) -> str:
        """What such a plan asks for and the worker has not; empty where it has all.

        It is known without asking the daemon, and words that may follow a worker's name.
        """
        ...

    async def resolve(self, plan: Plan, keyring: Keyring) -> Plan:
        """The plan with its revision resolved: a commit or digest. Raises Failed, Unavailable."""
        ...

    async def build(self, ref: str, plan: Plan, keyring: Keyring, report: Report) -> Built:
        """Build under the id `ref`, and give the image every name of the plan.

        Raises Rejected, Failed or Unavailable; an error of an image that is there all the same
        carries it as `built`.
        """
        ...

    async def checked(self, built: Built, keyring: Keyring) -> Built:
        """The same, with the names marked that another push has taken meanwhile.

        It costs a request for each name, and raises nothing: a name that cannot be asked after
        counts as ours.
        """
        ...


class Cluster(Protocol):
    """The objects of one kind, as far as we ask of them.

    The namespace of a cluster-scoped one is empty. Calls raise Unavailable where the cluster does
    not answer.
    """

    def list_objects(self) -> AsyncIterator[Body]:
        """Every object in view, page by page."""
        ...

    async def get_object(self, namespace: str, name: str) -> Body:
        """The object. Raises Gone."""
        ...

    async def patch_status(self, namespace: str, name: str, patch: Body) -> Body:
        """Merge `patch` into the object by its status subresource, and return the new object.

        A `metadata.resourceVersion` in the patch is a condition. Raises Conflict, Gone.
        """
        ...

    async def delete_object(self, namespace: str, name: str, uid: str) -> None:
        """Delete this very object. One that is gone already is fine."""
        ...
