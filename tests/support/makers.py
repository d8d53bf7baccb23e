"""Values for tests of the core and the shell: a build, facts about it, a cluster in memory."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from imagewright.api.imagebuild import ImageBuild
from imagewright.domain.facts import Facts, Job, JobState
from imagewright.domain.notice import Notice
from imagewright.domain.planning import inputs_digest
from imagewright.ports import Body, Conflict, Gone, Subject, Unavailable

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = NOW + timedelta(hours=2)
UID = "uid-1"
FILES = {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a\n"}
INLINE: dict[str, Any] = {"source": {"inline": {"files": FILES}}}
GIT: dict[str, Any] = {"source": {"git": {"url": "https://git.example/app"}}}


def a_body(spec: Mapping[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """An ImageBuild as the API server sends it, not looked at yet."""
    return {
        "apiVersion": "imagewright.dev/v1alpha1",
        "kind": "ImageBuild",
        "metadata": {
            "name": "one",
            "namespace": "team",
            "uid": UID,
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-02T03:00:00Z",
            **metadata,
        },
        "spec": {**INLINE, **(spec or {})},
        "status": {"observedGeneration": -1},
    }


def a_build(
    spec: Mapping[str, Any] | None = None, status: Mapping[str, Any] | None = None, **metadata: Any
) -> ImageBuild:
    """A build; a status is one of these very inputs unless it says otherwise."""
    body = a_body(spec, **metadata)
    build = ImageBuild.parse(body)
    if status is None:
        return build
    own = {"observedGeneration": 1, "inputsDigest": inputs_digest(build.spec), **status}
    return ImageBuild.parse({**body, "status": own})


def some_facts(build: ImageBuild | None, state: JobState | None = None, **more: Any) -> Facts:
    """Facts about the build; a job is one for these very inputs unless it says otherwise."""
    facts = Facts(build, now=NOW, holder="me", uid=UID)
    if state is not None:
        facts = replace(facts, job=Job(facts.inputs, state))
    return replace(facts, **more)


class Told:
    """Remembers what people are told: the words, with the names of the objects."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.notes: list[str] = []

    def tell(self, subject: Subject, notice: Notice, now: datetime) -> None:
        """Remember it."""
        self.words.append(f"{notice.word} {subject.name}")
        self.notes.append(notice.note)


class FakeCluster:
    """ImageBuilds in memory, with the API server's resource versions, conflicts and deletes."""

    def __init__(self) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        self.writes: list[Body] = []
        self.deleted: list[str] = []
        self.out = 0
        """So many writes are not answered."""
        self._version = 1

    def put(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create or replace an object, as a user does; returns what is stored."""
        self._version += 1
        meta = {**body["metadata"], "resourceVersion": str(self._version)}
        stored = {**body, "metadata": meta}
        self.bodies[meta["name"]] = stored
        return stored

    def edit(self, name: str, generation: int, **spec: Any) -> dict[str, Any]:
        """Change fields of an object's spec, as a user does."""
        body = self.bodies[name]
        meta = {**body["metadata"], "generation": generation}
        return self.put({**body, "metadata": meta, "spec": {**body["spec"], **spec}})

    async def list_objects(self) -> AsyncIterator[Body]:
        """All of them."""
        for body in list(self.bodies.values()):
            yield body

    async def get_object(self, namespace: str, name: str) -> Body:
        """One of them."""
        if name not in self.bodies:
            raise Gone(f"{namespace}/{name} is not there.")
        return self.bodies[name]

    async def patch_status(self, namespace: str, name: str, patch: Body) -> Body:
        """A merge patch with the resource version as its condition."""
        if self.out:
            self.out -= 1
            raise Unavailable("The API server did not answer.")
        body = dict(await self.get_object(namespace, name))
        if patch["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Conflict("Somebody else wrote first.")
        self.writes.append(patch)
        return self.put({**body, "status": merged(body.get("status", {}), patch["status"])})

    async def delete_object(self, namespace: str, name: str, uid: str) -> None:
        """Delete this very object."""
        found = self.bodies.get(name)
        if found is not None and found["metadata"]["uid"] == uid:
            del self.bodies[name]
            self.deleted.append(f"{namespace}/{name}")


def merged(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7386: `patch` applied to `old`."""
    result = dict(old)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            before = result.get(key)
            result[key] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            result[key] = value
    return result
