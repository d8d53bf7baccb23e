"""imagewright build: what the cluster will do, on one BuildKit and without a cluster."""

import asyncio
import os
import secrets
import sys
from dataclasses import replace
from typing import Any, TextIO

import click
import yaml
from pydantic import ValidationError

from imagewright.api.imagebuild import ImageBuild, Phase
from imagewright.cli.display import Display, make_display
from imagewright.clients.buildkit.control import Control
from imagewright.domain.decide import (
    Begin,
    Decision,
    Prepare,
    Retry,
    deadline,
    decide,
)
from imagewright.domain.facts import Ended, Facts, Granted, Job, JobState, Prepared, Running
from imagewright.domain.plan import Directory, Plan, make_plan
from imagewright.domain.status import ref_of, summarize
from imagewright.jobs import attempt, broken_by
from imagewright.main import clock, worker_of
from imagewright.ports import Backend, Error

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
    control = Control(address)
    try:
        backend = worker_of(control, slots=1).backend
        return await LocalRun(backend, address, display, context).run(wanted)
    finally:
        await control.close()


class LocalRun:
    """One build by the operator's own rules, with nobody to write its status to but the caller."""

    def __init__(
        self, backend: Backend, worker: str, display: Display, context: str | None = None
    ) -> None:
        self._backend, self._worker, self._display = backend, worker, display
        self._context = os.path.abspath(context) if context else ""  # noqa: PTH100  # no file is read
        self._state: JobState | None = None

    async def run(self, build: ImageBuild) -> ImageBuild:
        """The build with its final status."""
        plan = self._plan(build)
        while True:
            facts = self._facts(build)
            decision = decide(facts)
            build = build.model_copy(update={"status": summarize(facts, decision)})
            if not isinstance(decision, Begin | Prepare | Retry):
                return build
            plan = await self._act(decision, build, plan)

    def _plan(self, build: ImageBuild) -> Plan:
        plan = make_plan(build.spec)
        return replace(plan, source=Directory(self._context)) if self._context else plan

    def _facts(self, build: ImageBuild) -> Facts:
        facts = Facts(build, clock(), HOLDER, turn=Granted(self._worker), uid=build.metadata.uid)
        return replace(facts, job=Job(facts.inputs, self._state)) if self._state else facts

    async def _act(self, decision: Decision, build: ImageBuild, plan: Plan) -> Plan:
        match decision:
            case Prepare():
                return await self._resolve(plan)
            case Retry():
                await asyncio.sleep(max(0.0, (decision.until - clock()).total_seconds()))
                self._state = None
            case _:
                await self._attempt(build, plan)
        return plan

    async def _resolve(self, plan: Plan) -> Plan:
        try:
            resolved = await self._backend.resolve(plan)
        except Error as error:
            self._state = Ended(broken_by(error, self._display.progress))
            return plan
        commit = getattr(resolved.source, "commit", "")
        self._state = Prepared(commit, self._worker)
        return resolved

    async def _attempt(self, build: ImageBuild, plan: Plan) -> None:
        began = Facts(build, clock(), HOLDER)
        due = deadline(began)
        seconds = (due - began.now).total_seconds() if due else None
        self._state = Running(0, "", began.now)
        try:
            async with asyncio.timeout(seconds):
                outcome = await attempt(self._backend, ref_of(began), plan, self._display.progress)
        except TimeoutError:
            return  # Still running by its state, and out of time by the rules.
        self._state = Ended(outcome)
