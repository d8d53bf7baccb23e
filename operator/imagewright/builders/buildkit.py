"""BuildKit as a builder: an Order in BuildKit's words, its answers in ours.

No session is opened where none is needed: inline files and git trees travel as LLB, a URL is
fetched by the daemon. That saves half the CPU and a third of the time of a small build.
"""

import asyncio
import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from imagewright.api.reason import Reason
from imagewright.builders.failure import translate
from imagewright.clients.buildkit import control, definition, trees
from imagewright.clients.buildkit.auth import Auth
from imagewright.clients.buildkit.errors import BuildKitError
from imagewright.clients.buildkit.filesync import FileSync
from imagewright.clients.buildkit.patterns import Patterns, parse_ignore_file
from imagewright.clients.buildkit.proto.ops_pb2 import Definition
from imagewright.clients.buildkit.session import Session
from imagewright.clients.buildkit.status import Event
from imagewright.domain.outcome import Built, Pushed
from imagewright.domain.plan import Config, Directory, Git, Http, Inline, Oci, Order, Plan
from imagewright.domain.progress import Advance, Output, Step
from imagewright.ports import Rejected, Report

FOLLOW_SECONDS = 5
"""How long the end of the Status stream is waited for once the build is over."""
INLINE_DOCKERFILE = "Dockerfile"
OLDEST_WITH_POLICIES = (0, 11)


@dataclass(slots=True)
class Context:
    """A plan's source in BuildKit's words."""

    attrs: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Definition] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    directory: str = ""


class BuildKitBuilder:
    """Builds on one BuildKit daemon, over the one warm channel of `daemon`."""

    def __init__(self, daemon: control.Control) -> None:
        self._daemon = daemon
        self._version: str | None = None

    async def resolve(self, source: Git) -> Git:
        """The source with its commit, as the daemon sees the repository."""
        asked = definition.GitSource(source.url, source.revision, submodules=source.submodules)
        try:
            found = await self._daemon.resolve_git(asked)
        except BuildKitError as error:
            raise translate(error) from error
        return replace(source, ref=found.ref, commit=found.commit)

    async def build(self, order: Order, report: Report) -> Built:
        """One Solve, with its Status stream followed for progress and logs."""
        context = context_of(order.plan)
        try:
            await self._check(context)
            async with self._session(context) as session:
                answer = await self._solve(request_of(order, context, session), report)
        except BuildKitError as error:
            raise translate(error) from error
        return built_of(order, answer)

    async def _solve(self, request: control.Solve, report: Report) -> dict[str, str]:
        following = asyncio.create_task(self._follow(request.ref, report))
        try:
            return await self._daemon.solve(request)
        finally:
            # The tail of the log comes after the answer; a cancelled build does not wait for it.
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                await asyncio.wait([following], timeout=FOLLOW_SECONDS)
            following.cancel()

    async def _follow(self, ref: str, report: Report) -> None:
        # Whatever breaks the stream breaks the Solve too, and that one is heard.
        with suppress(BuildKitError):
            async for event in self._daemon.follow(ref):
                report(advance_of(event))

    async def _check(self, context: Context) -> None:
        """Refuse what an old daemon would silently leave out."""
        if not context.checksums:
            return
        if self._version is None:
            self._version = await self._daemon.info()
        if older(self._version, OLDEST_WITH_POLICIES):
            raise Rejected(
                "spec.source.http.sha256 needs BuildKit v0.11 or later on the worker: an older "
                "one would not check it. Update the worker, or leave the sha256 out.",
                Reason.FEATURE_UNSUPPORTED,
            )

    @asynccontextmanager
    async def _session(self, context: Context) -> AsyncIterator[str]:
        """The id of a session that serves the context's folder; empty, and none, without one."""
        if not context.directory:
            yield ""
            return
        folder = trees.Directory(context.directory)
        files = FileSync({"context": folder, "dockerfile": folder})
        handlers = {**files.handlers(), **Auth().handlers()}
        async with Session(self._daemon.open_session, handlers, files.shared_key) as session:
            yield session.id


def context_of(plan: Plan) -> Context:
    """Where the daemon finds the context and the Dockerfile of a plan."""
    context = _context_of_source(plan)
    if plan.dockerfile_inline:
        context.attrs["filename"] = INLINE_DOCKERFILE
        text = {INLINE_DOCKERFILE: plan.dockerfile_inline.encode()}
        context.inputs["dockerfile"] = definition.files(text)
    return context


def _context_of_source(plan: Plan) -> Context:
    match plan.source:
        case Inline():
            return _inline(plan, plan.source)
        case Git():
            return _git(plan, plan.source)
        case Http():
            return _http(plan, plan.source)
        case Directory():
            return _directory(plan, plan.source)
        case Oci() | Config():
            raise LookupError("The backend turns what a daemon cannot fetch into files first.")


def request_of(order: Order, context: Context, session: str) -> control.Solve:
    """The Solve of an order."""
    return control.Solve(
        ref=order.ref,
        attrs={**attributes(order.plan), **context.attrs},
        inputs=context.inputs,
        exports=exports(order),
        checksums=context.checksums,
        session=session,
    )


def attributes(plan: Plan) -> dict[str, str]:
    """What the Dockerfile frontend is told, context apart. Every key is ours or checked."""
    attrs = {f"build-arg:{name}": value for name, value in plan.build_args.items()}
    attrs |= {f"label:{name}": value for name, value in plan.labels.items()}
    if plan.target:
        attrs["target"] = plan.target
    if plan.platforms:
        attrs["platform"] = ",".join(plan.platforms)
    if plan.pull:
        attrs["image-resolve-mode"] = "pull"
    if plan.no_cache:
        attrs["no-cache"] = ""
    if plan.network != "default":
        attrs["force-network-mode"] = plan.network
    return attrs


def exports(order: Order) -> tuple[control.Export, ...]:
    """The image exporter, pushing under every name; nothing where there is no name."""
    if not order.names:
        return ()
    attrs = {"name": ",".join(str(name) for name in order.names), "push": "true"}
    attrs |= {f"annotation.{key}": value for key, value in order.plan.annotations.items()}
    return (control.Export("image", attrs),)


def built_of(order: Order, answer: dict[str, str]) -> Built:
    """The exporter's answer in our words."""
    digest = answer.get("containerimage.digest", "")
    pushed = tuple(
        Pushed(name.name, name.tag, digest, name.pinned(digest)) for name in order.names
    )
    return Built(digest, answer.get("containerimage.config.digest", ""), pushed)


def advance_of(event: Event) -> Advance:
    """A Status event in our words."""
    return Advance(
        steps=tuple(
            Step(one.digest, one.name, one.cached, one.started, one.completed, one.error)
            for one in event.vertexes
        ),
        outputs=tuple(Output(log.vertex, log.data) for log in event.logs),
    )


def older(version: str, than: tuple[int, int]) -> bool:
    """Whether a version is older. One built without a version (v0.0.0) is taken for a new one."""
    numbers = version.lstrip("v").split(".")
    if not version:
        return True
    if len(numbers) < len(than) or not all(part.isdigit() for part in numbers[:2]):
        return False
    found = (int(numbers[0]), int(numbers[1]))
    return found != (0, 0) and found < than


def _inline(plan: Plan, source: Inline) -> Context:
    """The files as LLB. The daemon filters no input by .dockerignore, so it is applied here."""
    tree = {path: text.encode() for path, text in source.files.items()}
    below = f"{plan.context_dir}/" if plan.context_dir else ""
    scoped = {
        path.removeprefix(below): data for path, data in tree.items() if path.startswith(below)
    }
    if below and not scoped:
        raise Rejected(
            f"spec.contextDir is {plan.context_dir}, but no inline file lies there: write its "
            "files as paths that begin with it.",
            Reason.SOURCE_UNAVAILABLE,
        )
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


def _git(plan: Plan, source: Git) -> Context:
    tree = definition.git(
        definition.GitSource(
            source.url,
            source.ref or source.commit or source.revision,
            source.commit,
            plan.context_dir,
            source.submodules,
        )
    )
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
    return Context({"filename": plan.dockerfile}, directory=source.path)
