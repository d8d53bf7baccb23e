"""Questions to a daemon that build nothing: what is asked, within what, and what comes of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from imagewright.clients.buildkit.control import CONTROL, Base, Control, Export, Solve
from imagewright.clients.buildkit.definition import GitSource
from imagewright.clients.buildkit.errors import BuildKitError, SolveError, Unsupported
from imagewright.clients.buildkit.gateway import BASE, BRIDGE, BUILD_ID
from imagewright.clients.buildkit.proto import control_pb2, gateway_pb2
from imagewright.clients.buildkit.request import Cache
from tests.support.grpc_daemon import Daemon, serve_daemon
from tests.support.grpc_go import in_time


@dataclass
class Asked:
    """A daemon whose builds wait for a Return, as those without a frontend do."""

    metadata: dict[str, bytes] = field(default_factory=dict)
    frames: list[control_pb2.SolveRequest] = field(default_factory=list)
    questions: list[tuple[str, Any]] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    failure: str = ""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def solve(self, request: bytes, context: Any) -> bytes:
        frame = control_pb2.SolveRequest.FromString(request)
        self.frames.append(frame)
        self.begun.set()
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self.stopped.set()
            raise
        return b""

    async def evaluate(self, request: bytes, context: Any) -> bytes:
        # A daemon waits for the build that a question names (control/gateway, lookupForwarder).
        await self.begun.wait()
        self.questions.append((_build(context), gateway_pb2.SolveRequest.FromString(request)))
        if self.failure:
            await context.abort(grpc.StatusCode.UNKNOWN, self.failure)
        answer = gateway_pb2.SolveResponse()
        for key, value in self.metadata.items():
            answer.result.metadata[key] = value
        return answer.SerializeToString()

    async def resolve(self, request: bytes, context: Any) -> bytes:
        question = gateway_pb2.ResolveSourceMetaRequest.FromString(request)
        self.questions.append((_build(context), question))
        git = gateway_pb2.ResolveSourceGitResponse(Ref="refs/heads/main", Checksum="c1")
        return gateway_pb2.ResolveSourceMetaResponse(Git=git).SerializeToString()

    async def finish(self, request: bytes, context: Any) -> bytes:
        assert gateway_pb2.ReturnRequest.FromString(request).HasField("result")
        self.returned.append(_build(context))
        self.done.set()
        return b""


def _build(context: Any) -> str:
    return str(dict(context.invocation_metadata())[BUILD_ID])


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[tuple[Control, Asked]]:
    made = Asked()
    answers = {
        CONTROL + "Solve": made.solve,
        BRIDGE + "Solve": made.evaluate,
        BRIDGE + "ResolveSourceMeta": made.resolve,
        BRIDGE + "Return": made.finish,
    }
    async with serve_daemon(tmp_path / "d.sock", Daemon(answers)) as address:
        control = Control(address)
        yield control, made
        await control.close()


REQUEST = Solve(
    "r",
    attrs={"target": "x"},
    exports=[Export("image", {"push": "true"})],
    session="s",
    entitlements=["network.host"],
    checksums={"https://a.example/c": "ab"},
    cache_imports=[Cache("inline")],
)
CONFIG = {
    "architecture": "arm64",
    "rootfs": {"type": "layers", "diff_ids": ["sha256:a", "sha256:b"]},
    "history": [{}, {"empty_layer": True}, {}],
}


async def test_a_question_lives_in_a_build_of_its_own_that_exports_nothing(
    asked: tuple[Control, Asked],
) -> None:
    control, daemon = asked
    daemon.metadata = {BASE: json.dumps(CONFIG).encode()}
    found = await control.base_of(REQUEST)

    assert found == Base(("sha256:a", "sha256:b"), 3, "arm64")
    ((build, question),) = daemon.questions
    (frame,) = daemon.frames
    assert daemon.returned == [build] == [frame.Ref]
    assert (frame.Session, frame.Internal, frame.Frontend) == ("s", True, "")
    assert list(frame.Entitlements) == ["network.host"]
    assert frame.HasField("SourcePolicy")
    assert not frame.Exporters
    assert not frame.HasField("Cache")
    assert (question.Frontend, dict(question.FrontendOpt)) == ("dockerfile.v0", {"target": "x"})


async def test_without_a_base_there_is_none(asked: tuple[Control, Asked]) -> None:
    control, _ = asked

    assert await control.base_of(REQUEST) is None


@pytest.mark.parametrize("config", [b"{", b"[]", b'{"rootfs": 1}', b'{"history": 1}', b"\xff"])
async def test_a_config_that_is_none_is_an_error(
    asked: tuple[Control, Asked], config: bytes
) -> None:
    control, daemon = asked
    daemon.metadata = {BASE: config}
    with pytest.raises(BuildKitError, match="about the base image"):
        await control.base_of(REQUEST)


async def test_a_question_that_fails_leaves_no_build_behind(asked: tuple[Control, Asked]) -> None:
    control, daemon = asked
    daemon.failure = "dockerfile parse error"
    with pytest.raises(SolveError, match="dockerfile parse error"):
        await control.base_of(REQUEST)

    await in_time(daemon.stopped.wait())
    assert daemon.returned == []


@pytest.mark.parametrize(
    "attrs", [{"platform": "linux/amd64,linux/arm64"}, {"multi-platform": "True"}]
)
async def test_several_platforms_are_not_asked_about(
    asked: tuple[Control, Asked], attrs: dict[str, str]
) -> None:
    control, daemon = asked
    with pytest.raises(Unsupported, match="one at a time"):
        await control.base_of(Solve("r", attrs=attrs))

    assert daemon.frames == []


async def test_a_repository_is_resolved_within_the_session(asked: tuple[Control, Asked]) -> None:
    control, daemon = asked
    found = await control.resolve_git(GitSource("https://a.example/r", token_secret="t"), "s")

    assert (found.ref, found.commit) == ("refs/heads/main", "c1")
    ((_, question),) = daemon.questions
    assert question.Source.attrs["git.authtokensecret"] == "t"
    assert daemon.frames[0].Session == "s"
