"""The Control client against a real buildkitd: each trap of its protocol, once."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

import devstack
from devstack.builds import Builds, condition
from devstack.components import Place, buildkitd
from devstack.operator import start_operator
from devstack.registries import Registries
from devstack.server import Command, Server, await_ready, free_port, start
from imagewright.clients.buildkit import definition
from imagewright.clients.buildkit.channel import Tls
from imagewright.clients.buildkit.control import Control, Export, Solve
from imagewright.clients.buildkit.errors import SolveError, TLSRefused, Unreachable
from imagewright.clients.buildkit.status import Vertex

_numbers = iter(range(1, 10_000))


@pytest.fixture
async def control(buildkit: str) -> AsyncIterator[Control]:
    """A client of the stack's buildkitd."""
    client = Control(buildkit)
    yield client
    await client.close()


def solve_of(dockerfile: str, *exports: Export, **files: str) -> Solve:
    """A Solve of inline files."""
    tree = {"Dockerfile": dockerfile.encode(), **{k: v.encode() for k, v in files.items()}}
    context = definition.files(tree)
    inputs = {"context": context, "dockerfile": context}
    return Solve(ref=f"control-{next(_numbers)}", inputs=inputs, exports=exports)


async def test_the_daemon_says_its_version(control: Control) -> None:
    assert re.fullmatch(r"v\d+\.\d+\.\d+.*", await control.info())


async def test_a_large_error_comes_whole_with_its_details(control: Control) -> None:
    """The Dockerfile travels in the error's trailer, far above gRPC's own limit of 16 KiB."""
    comment = "# a line of a long Dockerfile\n" * 5_000
    with pytest.raises(SolveError, match="unknown instruction: NOPE") as caught:
        await control.solve(solve_of(f"FROM scratch\n{comment}NOPE\n"))
    assert caught.value.details.line == 5_002


async def test_a_message_above_grpcs_default_limit_is_sent(control: Control) -> None:
    big = "x" * (5 << 20)
    answer = await control.solve(solve_of("FROM scratch\nCOPY big /\n", Export("image"), big=big))
    assert answer["containerimage.digest"].startswith("sha256:")


async def test_a_failed_step_is_known_by_digest_line_and_exit_code(
    control: Control, stack: devstack.Stack
) -> None:
    request = solve_of(f"FROM {stack.base_image}\nRUN true\nRUN \\\n  exit 7\n")
    vertexes: dict[str, Vertex] = {}

    async def follow() -> None:
        async for event in control.follow(request.ref):
            vertexes.update({vertex.digest: vertex for vertex in event.vertexes})

    following = asyncio.create_task(follow())
    with pytest.raises(SolveError) as caught:
        await control.solve(request)
    await asyncio.wait_for(following, 5)
    details = caught.value.details
    assert (details.exit_code, details.line) == (7, 3)
    assert "exit code: 7" in vertexes[details.vertex].error


async def test_status_events_are_upserts_of_the_same_vertex(control: Control) -> None:
    request = solve_of("FROM scratch\nCOPY a /\n", a="upsert")
    seen: list[Vertex] = []

    async def follow() -> None:
        async for event in control.follow(request.ref):
            seen.extend(event.vertexes)

    following = asyncio.create_task(follow())
    await control.solve(request)
    await asyncio.wait_for(following, 5)
    copies = [vertex for vertex in seen if "COPY a /" in vertex.name]
    assert len(copies) > 1
    assert len({vertex.digest for vertex in copies}) == 1
    assert copies[0].started is None
    assert copies[-1].completed is not None


async def test_a_daemon_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    client = Control(f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(Unreachable):
        await client.info()
    await client.close()


@dataclass(frozen=True, slots=True)
class SecureDaemon:
    """A buildkitd that asks for a client's certificate."""

    address: str
    authority: trustme.CA
    server: Server

    def client(self, authority: trustme.CA | None = None, name: str = "") -> Tls:
        """What a client shows, signed by the daemon's own authority or another."""
        certificate = (authority or self.authority).issue_cert("client")
        return Tls(
            self.authority.cert_pem.bytes(),
            b"".join(part.bytes() for part in certificate.cert_chain_pems),
            certificate.private_key_pem.bytes(),
            name,
        )


@pytest.fixture(scope="module")
def secure(
    stack: devstack.Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SecureDaemon]:
    """buildkitd on TCP with mutual TLS, certified as `worker.test`."""
    folder = tmp_path_factory.mktemp("secure")
    authority = trustme.CA()
    certificate = authority.issue_cert("worker.test")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
    (folder / "cert.pem").write_bytes(chain)
    address = f"tcp://127.0.0.1:{free_port()}"
    place = Place(stack.binaries["buildkitd"], folder)
    plain = buildkitd(place, address, Registries(folder))
    flags = [f"--tls{name}={folder / file}" for name, file in FILES.items()]
    command = Command(plain.name, [*plain.arguments, *flags], plain.ready)
    server = await_ready(command, start(command, folder))
    yield SecureDaemon(address, authority, server)
    server.stop()


FILES = {"cacert": "ca.pem", "cert": "cert.pem", "key": "key.pem"}


@pytest.mark.row("S21")
async def test_mutual_tls_works_under_the_daemons_other_name(secure: SecureDaemon) -> None:
    client = Control(secure.address, secure.client(name="worker.test"))
    assert await client.info()
    assert await client.solve(solve_of("FROM scratch\nLABEL a=b\n")) == {}
    await client.close()


@pytest.mark.row("S21")
@pytest.mark.parametrize(
    "how", ["another name", "another authority", "no certificate", "plain text"]
)
async def test_a_certificate_that_is_not_right_is_refused(secure: SecureDaemon, how: str) -> None:
    tls = {
        "another name": secure.client(),
        "another authority": secure.client(trustme.CA(), "worker.test"),
        "no certificate": Tls(secure.authority.cert_pem.bytes(), server_name="worker.test"),
        "plain text": None,
    }[how]
    client = Control(secure.address, tls)
    with pytest.raises(Unreachable if how == "plain text" else TLSRefused):
        await client.info()
    await client.close()


@pytest.mark.row("F35")
@pytest.mark.parametrize(("name", "phase"), [("worker.test", "Succeeded"), ("other", "Pending")])
async def test_the_operator_shows_its_certificate_and_checks_the_workers(
    stack: devstack.Stack,
    builds: Builds,
    secure: SecureDaemon,
    tmp_path: Path,
    name: str,
    phase: str,
) -> None:
    client = secure.client()
    files = {"ca": client.ca, "cert": client.cert, "key": client.key}
    for file, content in files.items():
        (tmp_path / file).write_bytes(content or b"")
    tls = {**{file: str(tmp_path / file) for file in files}, "serverName": name}
    operator = await asyncio.to_thread(
        start_operator,
        tmp_path / "operator",
        stack.operator_kubeconfig,
        namespaces=[builds.namespace],
        pools=[{"workers": [secure.address], "tls": tls}],
    )
    try:
        dockerfile = {"Dockerfile": "FROM scratch\nLABEL tls=yes\n"}
        await builds.create("tls", {"source": {"inline": {"files": dockerfile}}})
        seen = await builds.until(
            "tls",
            lambda one: (
                one.status.get("phase") == phase
                and (phase == "Succeeded" or "certificates" in told(one.body))
            ),
        )
        assert phase == "Succeeded" or condition(seen.body, "Succeeded")["reason"] == "NoWorker"
    finally:
        await asyncio.to_thread(operator.stop)


def told(body: dict[str, Any]) -> str:
    """The message of the condition that says how it is."""
    return str(condition(body, "Succeeded").get("message", ""))
