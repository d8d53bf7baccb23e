"""Where BuildKit finds a plan's context and Dockerfile, in its own words.

Inline files and git trees travel as LLB, a URL is fetched by the daemon, and only a folder needs a
session. That saves half the CPU and a third of the time of a small build.
"""

import posixpath
from dataclasses import dataclass, field, replace

from imagewright.builders.folder import files_of, folder_of
from imagewright.clients.buildkit import definition
from imagewright.clients.buildkit.patterns import Patterns, parse_ignore_file
from imagewright.clients.buildkit.proto.ops_pb2 import Definition
from imagewright.domain.plan import Config, Directory, Git, Http, Inline, Oci, Plan

INLINE_DOCKERFILE = "Dockerfile"


@dataclass(frozen=True, slots=True)
class GitAccess:
    """What opens a repository, by the ids under which the session serves it; empty: nothing."""

    header: str = ""
    ssh: str = ""
    known_hosts: str = ""


OPEN = GitAccess()


@dataclass(slots=True)
class Context:
    """A plan's source in BuildKit's words."""

    attrs: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Definition] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    directory: str = ""


def context_of(plan: Plan, access: GitAccess = OPEN) -> Context:
    """Where the daemon finds the context and the Dockerfile of a plan. May look at a folder."""
    context = _context_of_source(plan, access)
    if plan.dockerfile_inline:
        context.attrs["filename"] = INLINE_DOCKERFILE
        text = {INLINE_DOCKERFILE: plan.dockerfile_inline.encode()}
        context.inputs["dockerfile"] = definition.files(text)
    return context


def _context_of_source(plan: Plan, access: GitAccess) -> Context:
    match plan.source:
        case Inline():
            return _inline(plan, plan.source)
        case Git():
            return _git(plan, git_source(plan.source, access))
        case Http():
            return _http(plan, plan.source)
        case Directory():
            return _directory(plan, plan.source)
        case Oci() | Config():
            raise LookupError("The backend turns what a daemon cannot fetch into files first.")


def _inline(plan: Plan, source: Inline) -> Context:
    """The files as LLB. The daemon filters no input by .dockerignore, so it is applied here."""
    scoped = files_of(source, plan.context_dir)
    return Context(
        attrs={"filename": plan.dockerfile},
        inputs={
            "context": definition.files(kept(scoped, plan.dockerfile)),
            "dockerfile": definition.files(scoped),
        },
    )


def kept(files: dict[str, bytes], dockerfile: str) -> dict[str, bytes]:
    """The files that the context's ignore file leaves in it."""
    own = files.get(f"{dockerfile}.dockerignore")
    text = own if own is not None else files.get(".dockerignore")
    if text is None:
        return files
    ignored = Patterns(parse_ignore_file(text.decode()))
    return {path: data for path, data in files.items() if not ignored.excludes(path)}


def git_source(source: Git, access: GitAccess) -> definition.GitSource:
    """The repository at its commit, or, where that is not known yet, at what was asked for."""
    return definition.GitSource(
        source.url,
        source.ref or source.commit or source.revision,
        source.commit,
        submodules=source.submodules,
        header_secret=access.header,
        ssh_agent=access.ssh,
        known_hosts=access.known_hosts,
    )


def _git(plan: Plan, source: definition.GitSource) -> Context:
    tree = definition.git(replace(source, subdir=plan.context_dir))
    return Context({"filename": plan.dockerfile}, {"context": tree, "dockerfile": tree})


def _http(plan: Plan, source: Http) -> Context:
    """The frontend fetches the URL and finds out by itself whether it is an archive.

    With a Dockerfile of its own a plan cannot take that way, since the frontend would then look
    for the Dockerfile in the download: the archive is unpacked by LLB.
    """
    subdir = {"contextsubdir": plan.context_dir} if plan.context_dir else {}
    if plan.dockerfile_inline:
        unpacked = definition.archive(source.url, source.sha256)
        return Context(subdir, {"context": unpacked})
    filename = posixpath.join(plan.context_dir, plan.dockerfile)
    return Context(
        {"context": source.url, "filename": filename, **subdir},
        checksums={source.url: source.sha256} if source.sha256 else {},
    )


def _directory(plan: Plan, source: Directory) -> Context:
    folder = folder_of(source, plan.context_dir)
    return Context({"filename": plan.dockerfile}, directory=folder)
