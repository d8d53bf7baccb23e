"""imagewright build: what the cluster will do, on one BuildKit and without a cluster."""

import asyncio
import os
import secrets
import sys
import tempfile
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import click
import yaml
from pydantic import ValidationError

from imagewright.api.buildstatus import Phase
from imagewright.api.imagebuild import ImageBuild
from imagewright.assembly import buildkit_worker, shared_of
from imagewright.cli.display import Display, make_display
from imagewright.cli.keyring import LocalKeyring
from imagewright.dependencies import gather
from imagewright.domain.decide import deadline, decide
from imagewright.domain.decision import Begin, Decision, Gather, Prepare, Retry
from imagewright.domain.facts import (
    Ended,
    Facts,
    Gathered,
    Granted,
    Job,
    JobState,
    Prepared,
    Running,
)
from imagewright.domain.plan import Access, Directory, Plan
from imagewright.domain.planning import make_plan
from imagewright.domain.status import ref_of, summarize
from imagewright.jobs import attempt, broken_by
from imagewright.main import clock
from imagewright.ports import Backend, Error
from imagewright.settings import Settings, SourceSettings

ADDRESS = "unix:///run/buildkit/buildkitd.sock"
HOLDER = "imagewright-build"


@click.command()
@click.option(
    "-f",
    "--filename",
    "file",
    type=click.File(),
    required=True,
    help="An ImageBuild; - for stdin.",
)
@click.option(
    "--address",
    envvar="IMAGEWRIGHT_BUILDKIT",
    default=ADDRESS,
    show_default=True,
    help="The BuildKit daemon: unix:///path or tcp://host:port.",
)
@click.option(
    "--context",
    type=click.Path(exists=True, file_okay=False),
    help="Build from this folder instead of spec.source.",
)
def build(file: TextIO, address: str, context: str | None) -> None:
    """Build an ImageBuild as the cluster would, and print it with its status.

    Exit status 0 where it succeeded, 1 where it did not, 2 where it cannot be read.
    """
    wanted = read_build(file)
    display = make_display(sys.stderr)
    try:
        with display:
            done = asyncio.run(_build(wanted, address, context, display))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("Stopped; the worker has ended the build.") from None
    click.echo(yaml.safe_dump(done.dump(), sort_keys=False, width=100), nl=False)
    sys.exit(0 if done.status.phase is Phase.SUCCEEDED else 1)


def read_build(file: TextIO) -> ImageBuild:
    """The one object in the file. Raises UsageError with a sentence for each fault."""
    try:
        body = yaml.safe_load(file)
    except yaml.YAMLError as error:
        raise click.UsageError(f"{file.name} is no YAML with one object: {error}") from error
    try:
        return ImageBuild.parse(_identified(body))
    except ValidationError as error:
        raise click.UsageError(f"{file.name}:\n{faults_of(error)}") from error


def faults_of(error: ValidationError) -> str:
    """Each fault on a line: where, then what to do."""
    faults = error.errors(include_url=False, include_input=False)
    return "\n".join(f"  {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)


def _identified(body: Any) -> Any:
    """What the API server would have added. Anything but an object is left for the parser."""
    if not isinstance(body, dict):
        return body
    given = body.get("metadata") or {}
    if not isinstance(given, dict):
        return body
    metadata = {"namespace": "default", "name": "local", **given, "uid": secrets.token_hex(8)}
    return {**body, "metadata": {**metadata, "generation": 1}, "status": {}}


async def _build(
    wanted: ImageBuild, address: str, context: str | None, display: Display
) -> ImageBuild:
    made = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="imagewright-")
    try:
        sources = SourceSettings(folder=Path(made.name), allow_loopback=True)
        async with (
            shared_of(Settings(sources=sources), clock) as shared,
            buildkit_worker(address, None, shared) as worker,
        ):
            return await LocalRun(worker.backend, address, display, context).run(wanted)
    finally:
        await asyncio.to_thread(made.cleanup)


class LocalRun:
    """One build by the operator's own rules, with nobody to write its status to but the caller."""

    def __init__(
        self, backend: Backend, worker: str, display: Display, context: str | None = None
    ) -> None:
        self._backend, self._worker, self._display = backend, worker, display
        self._context = os.path.abspath(context) if context else ""  # noqa: PTH100  # no file is read
        self._state: JobState | None = None
        self._keyring = LocalKeyring()

    async def run(self, build: ImageBuild) -> ImageBuild:
        """The build with its final status."""
        plan = self._plan(build)
        while True:
            facts = self._facts(build)
            decision = decide(facts)
            build = build.model_copy(update={"status": summarize(facts, decision)})
            if not isinstance(decision, Begin | Gather | Prepare | Retry):
                return build
            plan = await self._act(decision, build, plan)

    def _plan(self, build: ImageBuild) -> Plan:
        plan = make_plan(build.spec)
        if self._keyring.there:
            # The daemon is told at all times who we are, as docker build does.
            plan = replace(plan, access=Access(("config.json",)))
        if not self._context:
            return plan
        return replace(plan, source=Directory(self._context), context_dir="")

    def _facts(self, build: ImageBuild) -> Facts:
        facts = Facts(build, clock(), HOLDER, turn=Granted(self._worker), uid=build.metadata.uid)
        return replace(facts, job=Job(facts.inputs, self._state)) if self._state else facts

    async def _act(self, decision: Decision, build: ImageBuild, plan: Plan) -> Plan:
        match decision:
            case Gather():
                plan = await self._find(gather(plan, self._keyring)) or plan
                self._state = self._state or Gathered()
            case Prepare():
                plan = await self._find(self._backend.resolve(plan, self._keyring)) or plan
                self._state = self._state or Prepared(plan.resolved, self._worker)
            case Retry():
                await asyncio.sleep(max(0.0, (decision.until - clock()).total_seconds()))
                self._state = None
            case _:
                await self._attempt(build, plan)
        return plan

    async def _find(self, finding: Awaitable[Plan]) -> Plan | None:
        """The plan with what was found out; None where that failed, and the run with it."""
        self._state = None
        try:
            return await finding
        except Error as error:
            self._state = Ended(broken_by(error, self._display.progress))
            return None

    async def _attempt(self, build: ImageBuild, plan: Plan) -> None:
        began = Facts(build, clock(), HOLDER)
        due = deadline(began)
        seconds = (due - began.now).total_seconds() if due else None
        self._state = Running(0, "", began.now)
        try:
            async with asyncio.timeout(seconds):
                call = (ref_of(began), self._keyring)
                outcome = await attempt(self._backend, call, plan, self._display.progress)
        except TimeoutError:
            return  # Still running by its state, and out of time by the rules.
        self._state = Ended(outcome)
