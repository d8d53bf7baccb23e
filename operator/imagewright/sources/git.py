"""Git repositories as contexts: the files of one commit, without their history.

git's own handling of submodules is not used: it clones whatever a repository names, from wherever
it names it. Each one is fetched here as a repository of its own, by the same rules.
"""

import asyncio
import os
import re
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from imagewright.api.reason import Reason
from imagewright.domain.plan import Git
from imagewright.ports import Failed, Rejected, Unavailable
from imagewright.sources.archive import Caps
from imagewright.sources.credential import Opener
from imagewright.sources.egress import Egress
from imagewright.sources.gitfailure import translate
from imagewright.sources.gitprocess import Access, Ended, TooMuch, access, run
from imagewright.sources.remote import Remote, parse, submodule
from imagewright.sources.removal import remove, size_of

COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
REVISION = re.compile(r"[A-Za-z0-9_./@+][A-Za-z0-9_./@+-]*")
DEEP, MANY = 8, 100
"""How deep submodules lie in one another, and how many there are in all."""
LOOK_SECONDS = 0.5
"""How often it is looked at what a running fetch has written."""
NO_SUCH_ID = re.compile(
    "not our ref|unadvertised object|does not allow request|couldn't find remote ref|no such ref"
)
"""What servers say that give out branches and tags only."""
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class _Repository:
    """One repository at one commit, and the Secret's content if it is for this server."""

    remote: Remote
    commit: str
    opener: Opener | None
    depth: int = 0


@dataclass(slots=True)
class _Budget:
    """What one source may still take, with all of its submodules."""

    size: int
    files: int
    modules: int = MANY


@dataclass(frozen=True, slots=True)
class GitFetcher:
    """Fetches with the git program, which must be 2.37 or later.

    Raises Failed (SourceUnavailable) where something is not there, Rejected (InvalidCredentials),
    and Unavailable where the server or the network fails.
    """

    egress: Egress = field(default_factory=Egress)
    caps: Caps = field(default_factory=Caps)

    async def resolve(self, source: Git, opener: Opener | None) -> Git:
        """The source with the commit that its revision stands for now.

        A branch goes before a tag of its name. A whole commit id is taken as it is, once the
        repository has answered.
        """
        revision = source.revision
        if revision and (not REVISION.fullmatch(revision) or ".." in revision):
            raise Rejected(
                "spec.source.git.revision is the name of a branch or tag, or a commit: letters, "
                "digits and ._/@+- without '..', and not '-' first.",
                Reason.SOURCE_UNAVAILABLE,
            )
        if COMMIT.fullmatch(revision):
            await self.prove(source, opener)
            return replace(source, ref=revision, commit=revision)
        wanted = _names(revision)
        found = await self._listed(source, opener, wanted)
        for name in wanted:
            if name in found:
                return replace(source, ref=name.removesuffix("^{}"), commit=found[name])
        raise Failed(
            f"spec.source.git.revision {revision!r} is no branch or tag of {source.url}; a commit "
            "is written with all of its digits."
            if revision
            else f"{source.url} is empty: it has no default branch.",
            Reason.SOURCE_UNAVAILABLE,
        )

    async def prove(self, source: Git, opener: Opener | None) -> None:
        """See that the credential opens the repository now."""
        await self._listed(source, opener, ("HEAD",))

    async def fetch(self, source: Git, opener: Opener | None, folder: Path) -> None:
        """Put the files of the source's commit into the folder, with submodules if asked."""
        if not COMMIT.fullmatch(source.commit):
            raise Rejected("The source has no commit yet.", Reason.SOURCE_UNAVAILABLE)
        repository = _Repository(parse(source.url), source.commit, opener)
        budget = _Budget(self.caps.out, self.caps.files)
        with _told(source, repository.remote):
            async with asyncio.timeout(self.caps.seconds):
                await self._checkout(source, repository, folder, budget)

    async def _listed(
        self, source: Git, opener: Opener | None, names: Sequence[str]
    ) -> dict[str, str]:
        """The ids of those names that there are."""
        remote = parse(source.url)
        with _told(source, remote):
            async with asyncio.timeout(60):
                addresses = await self.egress.addresses(remote.host, remote.port)
                with access(remote, addresses, opener) as way:
                    asked = ["ls-remote", "--quiet", "--", way.url, *names]
                    ended = await run(asked, Path("/"), way)
        _good(ended, source)
        lines = (line.partition("\t") for line in ended.output.decode().splitlines())
        return {name: commit for commit, _, name in lines if name in names}

    async def _checkout(
        self, source: Git, repository: _Repository, folder: Path, budget: _Budget
    ) -> None:
        remote = repository.remote
        addresses = await self.egress.addresses(remote.host, remote.port)
        with access(remote, addresses, repository.opener) as way:
            await self._bounded(self._fetched(source, repository, folder, way), folder, budget)
        links = await self._entries(repository, folder, budget)
        modules = await _modules(repository, folder) if links and source.submodules else {}
        _good(await _local(folder, "checkout", "--quiet", "--force", repository.commit), source)
        await asyncio.to_thread(remove, str(folder / ".git"))
        if source.submodules:
            for path, commit in links.items():
                child = _child(source, repository, modules.get(path, ""), commit)
                place = await asyncio.to_thread(_place, folder, path)
                budget.modules -= 1
                if budget.modules < 0 or child.depth > DEEP:
                    raise Failed(
                        f"spec.source.git.url has more than {MANY} submodules, or more than "
                        f"{DEEP} within one another.",
                        Reason.SOURCE_UNAVAILABLE,
                    )
                inner = replace(source, url=child.remote.url, ref="", commit=commit)
                await self._checkout(inner, child, place, budget)

    async def _fetched(
        self, source: Git, repository: _Repository, folder: Path, way: Access
    ) -> None:
        """Have the commit in the folder's repository: alone, or, if the server must, with all."""
        commit = repository.commit
        kind = "sha256" if len(commit) == 64 else "sha1"
        _good(
            await _local(folder, "init", "--quiet", "--template=", f"--object-format={kind}"),
            source,
        )
        plain = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"]
        ended = await run([*plain, "--depth=1", "--", way.url, commit], folder, way)
        if ended.code and NO_SUCH_ID.search(ended.words):
            every = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
            ended = await run([*plain, "--", way.url, *every], folder, way)
        _good(ended, source)
        there = await _local(folder, "cat-file", "-e", f"{commit}^{{commit}}")
        if there.code:
            raise Failed(
                f"The commit {commit} is not in {source.url}, or in no branch and tag of it.",
                Reason.SOURCE_UNAVAILABLE,
            )

    async def _bounded(
        self, work: Coroutine[Any, Any, ResultT], folder: Path, budget: _Budget
    ) -> ResultT:
        """The work's result; it is stopped where the folder outgrows what is left."""
        task = asyncio.create_task(work)
        try:
            while not (await asyncio.wait([task], timeout=LOOK_SECONDS))[0]:
                size = await asyncio.to_thread(size_of, str(folder))
                if size > min(budget.size, self.caps.wire):
                    raise self._too_large()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def _entries(
        self, repository: _Repository, folder: Path, budget: _Budget
    ) -> dict[str, str]:
        """Its submodules, path to commit. What a checkout will write is counted before it does."""
        ended = await _local(folder, "ls-tree", "-r", "-l", "-z", "--full-tree", repository.commit)
        links = {}
        for line in filter(None, ended.output.split(b"\0")):
            told, _, path = line.partition(b"\t")
            mode, _, name, size = told.split()
            if mode == b"160000":
                links[os.fsdecode(path)] = name.decode()
            budget.files -= 1
            budget.size -= int(size) if size.isdigit() else 0
        if budget.files < 0 or budget.size < 0:
            raise self._too_large()
        return links

    def _too_large(self) -> Failed:
        return Failed(
            f"spec.source.git.url is too large: {self.caps.wire >> 20} MiB may be sent for it, "
            f"and {self.caps.out >> 20} MiB in {self.caps.files} files may be in it.",
            Reason.SOURCE_UNAVAILABLE,
        )


def _names(revision: str) -> tuple[str, ...]:
    """The names that a revision may stand for, the first of which counts."""
    if not revision:
        return ("HEAD",)
    if revision.startswith("refs/"):
        return (f"{revision}^{{}}", revision)
    tag = f"refs/tags/{revision}"
    return (f"refs/heads/{revision}", f"{tag}^{{}}", tag)


async def _local(folder: Path, *arguments: str) -> Ended:
    """Run git where it asks nobody."""
    return await run(arguments, folder, Access(""))


async def _modules(repository: _Repository, folder: Path) -> dict[str, str]:
    """What .gitmodules says: path to url."""
    blob = f"{repository.commit}:.gitmodules"
    asked = ("config", "--blob", blob, "-z", "--get-regexp", r"^submodule\..*\.(path|url)$")
    ended = await _local(folder, *asked)
    paths: dict[str, str] = {}
    urls: dict[str, str] = {}
    for line in ended.output.decode(errors="surrogateescape").split("\0"):
        key, _, value = line.partition("\n")
        name, _, what = key.rpartition(".")
        (paths if what == "path" else urls)[name] = value
    return {path: urls.get(name, "") for name, path in paths.items()}


def _child(source: Git, parent: _Repository, url: str, commit: str) -> _Repository:
    """A submodule. The Secret opens it where it is on the very server that the Secret is for."""
    if not url:
        raise Failed(
            f"{source.url} has a submodule that its .gitmodules gives no url.",
            Reason.SOURCE_UNAVAILABLE,
        )
    remote = submodule(parent.remote, url)
    ours = remote.origin == parent.remote.origin
    return _Repository(remote, commit, parent.opener if ours else None, parent.depth + 1)


def _place(folder: Path, path: str) -> Path:
    """The empty folder that a checkout left for a submodule; never one behind a link."""
    place = folder
    for part in path.split("/"):
        place /= part
        if part in ("", ".", "..", ".git") or place.is_symlink() or not place.is_dir():
            raise Failed(
                f"The submodule at {path!r} does not lie in its repository.",
                Reason.SOURCE_UNAVAILABLE,
            )
    return place


def _good(ended: Ended, source: Git) -> None:
    if ended.code:
        raise translate(ended, source)


@contextmanager
def _told(source: Git, remote: Remote) -> Iterator[None]:
    """Errors of the machine in the user's words."""
    try:
        yield
    except TimeoutError as error:
        raise Unavailable(
            f"{remote.url} was not fetched in time: it is too slow, or silent.",
            Reason.SOURCE_UNAVAILABLE,
        ) from error
    except TooMuch as error:
        raise Failed(
            f"{remote.url} has more branches, tags or files than can be read.",
            Reason.SOURCE_UNAVAILABLE,
        ) from error
    except FileNotFoundError as error:
        raise Rejected(
            f"{source.url} cannot be fetched: the operator has no program git. Put it into its "
            "image, or build with builder: buildkit, whose worker fetches by itself.",
            Reason.FEATURE_UNSUPPORTED,
        ) from error
