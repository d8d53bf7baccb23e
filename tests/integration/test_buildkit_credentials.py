"""Credentials with a real buildkitd: registries in all three ways, secrets, SSH, private git."""

import asyncio
import base64
import itertools
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from devstack import PASSWORD, USERNAME, Stack
from devstack.components import Place, buildkitd
from devstack.debian import program
from devstack.gitserver import make_repository
from devstack.registries import PRIVATE, Registries
from devstack.server import Command, Server, await_ready, free_port, listening, start
from devstack.tokens import Signer
from devstack.tokenserver import TokenServer, serve_tokens
from imagewright.clients.buildkit import definition
from imagewright.clients.buildkit.auth import Auth, Credential, Credentials
from imagewright.clients.buildkit.calls import Handler, Stream
from imagewright.clients.buildkit.control import Cache, Control, Export, Prune, Solve
from imagewright.clients.buildkit.definition import GitSource
from imagewright.clients.buildkit.errors import SolveError
from imagewright.clients.buildkit.secrets import Secrets
from imagewright.clients.buildkit.session import Session
from imagewright.clients.buildkit.ssh import Agents
from imagewright.clients.registry.tokens import TokenClient
from tests.support.private_git import (
    GitOverSsh,
    libraries_of,
    new_key,
    serve_git_over_http,
    serve_git_over_ssh,
)

_numbers = itertools.count()


def solve_of(dockerfile: str, *exports: Export, **files: bytes) -> Solve:
    context = definition.files({"a": b"a", **files})
    inputs = {
        "context": context,
        "dockerfile": definition.files({"Dockerfile": dockerfile.encode()}),
    }
    return Solve(secrets.token_hex(12), inputs=inputs, exports=exports)


class Asked:
    """A session's handlers, and which of them were called."""

    def __init__(self, *services: Auth | Secrets | Agents) -> None:
        handlers = {name: one for each in services for name, one in each.handlers().items()}
        self.handlers = {name: self._noted(name, one) for name, one in handlers.items()}
        self.calls: list[str] = []

    def _noted(self, name: str, handler: Handler) -> Handler:
        async def noted(stream: Stream) -> None:
            self.calls.append(name.rpartition("/")[2])
            await handler(stream)

        return noted


async def build(control: Control, request: Solve, *services: Auth | Secrets | Agents) -> Asked:
    """Build with these services; the calls that the daemon made."""
    asked = Asked(*services)
    await run(control, request, asked)
    return asked


async def run(control: Control, request: Solve, asked: Asked) -> None:
    async with Session(control.open_session, asked.handlers) as session, asyncio.timeout(60):
        await control.solve(replace(request, session=session.id))


@pytest.fixture
async def control(buildkit: str) -> AsyncIterator[Control]:
    client = Control(buildkit)
    yield client
    await client.close()


@dataclass(frozen=True, slots=True)
class Private:
    """A registry with a namespace for each tenant, and a daemon that knows no token for it yet."""

    control: Control
    bearer: str
    tokens: TokenServer


def registry(stack: Stack, folder: Path, port: int, auth: Mapping[str, object]) -> Command:
    config = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "auth": auth,
    }
    (folder / "config.json").write_text(json.dumps(config))
    arguments = [str(stack.binaries["registry"]), "serve", str(folder / "config.json")]
    environment = {"OTEL_TRACES_EXPORTER": "none"}
    return Command("registry", arguments, lambda: listening(port), environment)


@pytest.fixture
async def private(stack: Stack, tmp_path: Path) -> AsyncIterator[Private]:
    async with AsyncExitStack() as running:
        passwords = {"alice": "s3cret", "bob": "b0bs"}
        signer = Signer(tmp_path)
        served = serve_tokens(TokenServer(signer, passwords, tenants=True))
        tokens = await running.enter_async_context(served)
        port = free_port()
        address = f"unix://{tmp_path / 'd.sock'}"
        place = Place(stack.binaries["buildkitd"], tmp_path)
        for command in (
            registry(stack, tmp_path, port, signer.section(tokens.url)),
            buildkitd(place, address, Registries(tmp_path, {"bearer": port})),
        ):
            server = await asyncio.to_thread(_up, command, tmp_path)
            running.push_async_callback(asyncio.to_thread, server.stop)
        control = Control(address)
        running.push_async_callback(control.close)
        yield Private(control, f"127.0.0.1:{port}", tokens)


def _up(command: Command, folder: Path) -> Server:
    return await_ready(command, start(command, folder))


ALICE = Credential("alice", "s3cret")


def knows(registry: str, credential: Credential = ALICE) -> Credentials:
    async def credentials(host: str) -> Credential | None:
        return credential if host == registry else None

    return credentials


def push(name: str, steps: str = "FROM scratch\nCOPY a /") -> Solve:
    """An image that is new each time."""
    export = Export("image", {"name": name, "push": "true"})
    return solve_of(f"{steps}\nLABEL n={secrets.token_hex(6)}\n", export)


async def forget(control: Control) -> None:
    """Make the daemon pull what it has."""
    await control.prune(Prune(all=True))


BY_US = {"GetTokenAuthority", "VerifyTokenAuthority", "FetchToken"}


@pytest.mark.parametrize("posts", [True, False])
async def test_a_token_is_fetched_by_us_and_the_daemon_never_sees_the_password(
    private: Private, posts: bool
) -> None:
    private.tokens.posts = posts
    name = f"{private.bearer}/alice/app"
    auth = Auth(knows(private.bearer), TokenClient())
    pushed = await build(private.control, push(name), auth)
    await forget(private.control)
    pulled = await build(private.control, solve_of(f"FROM {name}\nCOPY a /b\n"), auth)

    assert "FetchToken" in pushed.calls
    assert set(pushed.calls) | set(pulled.calls) <= BY_US
    asked = {(one.method, one.user) for one in private.tokens.seen}
    assert asked == {("POST" if posts else "GET", "alice")}


async def test_a_token_is_fetched_by_the_daemon_where_we_do_not(private: Private) -> None:
    name = f"{private.bearer}/alice/app"
    auth = Auth(knows(private.bearer))
    pushed = await build(private.control, push(name), auth)
    await forget(private.control)
    await build(private.control, solve_of(f"FROM {name}\nCOPY a /b\n"), auth)

    assert set(pushed.calls) == {"Credentials"}
    assert {one.user for one in private.tokens.seen} == {"alice"}


OURS = Credential(USERNAME, PASSWORD)


@pytest.mark.parametrize("tokens", [TokenClient(), None], ids=["by us", "by the daemon"])
@pytest.mark.parametrize("name", PRIVATE)
async def test_each_private_registry_lets_us_push_and_pull(
    control: Control, stack: Stack, name: str, tokens: TokenClient | None
) -> None:
    """Pushed layers that nobody else has, and pulled again by another name."""
    host = stack.registries[name]
    image = f"{host}/{secrets.token_hex(6)}/app"
    auth = Auth(knows(host, OURS), tokens)
    pushed = await build(control, push(image), auth)
    pulled = await build(control, push(f"{image}2", f"FROM {image}\nCOPY a /b"), auth)

    calls = set(pushed.calls) | set(pulled.calls)
    assert calls
    assert calls <= (BY_US if tokens and name == "token" else {"Credentials"})


@pytest.mark.parametrize("tokens", [TokenClient(), None], ids=["by us", "by the daemon"])
@pytest.mark.parametrize("name", PRIVATE)
async def test_a_wrong_password_is_refused_and_shown_nowhere(
    control: Control, stack: Stack, name: str, tokens: TokenClient | None
) -> None:
    host = stack.registries[name]
    auth = Auth(knows(host, Credential(USERNAME, "wr0ng")), tokens)
    with pytest.raises(SolveError, match=r"(?i)unauthorized|401") as caught:
        await build(control, push(f"{host}/{secrets.token_hex(6)}/app"), auth)

    assert "wr0ng" not in str(caught.value)


async def test_a_token_of_one_tenant_is_not_used_for_another(private: Private) -> None:
    """The daemon keeps tokens, and looks for one whose authority the new session can prove."""
    name = f"{private.bearer}/alice/app"
    alice = Auth(knows(private.bearer), TokenClient())
    pull = f"FROM {name}\nCOPY a /b\n"
    await build(private.control, push(name), alice)
    await build(private.control, solve_of(pull), alice)
    before = len(private.tokens.seen)
    await forget(private.control)
    again = await build(private.control, solve_of(pull), alice)
    await forget(private.control)
    bob = Asked(Auth(knows(private.bearer, Credential("bob", "b0bs")), TokenClient()))
    with pytest.raises(SolveError, match=r"(?i)insufficient_scope|denied|unauthorized"):
        await run(private.control, solve_of(pull), bob)

    assert again.calls[0] == "VerifyTokenAuthority"
    assert "FetchToken" not in again.calls
    assert bob.calls[0] == "VerifyTokenAuthority"
    assert {one.user for one in private.tokens.seen[before:]} == {"bob"}


async def test_a_private_base_is_known_within_a_session(private: Private) -> None:
    name = f"{private.bearer}/alice/app"
    auth = Auth(knows(private.bearer), TokenClient())
    await build(private.control, push(name), auth)
    request = solve_of(f"FROM {name}\nRUN exit 7\n")

    with pytest.raises(SolveError):
        await private.control.base_of(request)
    async with Session(private.control.open_session, auth.handlers()) as session:
        base = await private.control.base_of(replace(request, session=session.id))
    assert base is not None
    assert len(base.diff_ids) == 1


async def test_a_cache_in_a_private_registry_is_written_and_read(private: Private) -> None:
    auth = Auth(knows(private.bearer), TokenClient())
    where = Cache("registry", {"ref": f"{private.bearer}/alice/cache", "mode": "max"})
    request = solve_of(f"FROM scratch\nCOPY a /\nLABEL n={next(_numbers)}\n")
    await build(private.control, replace(request, cache_exports=[where]), auth)
    await forget(private.control)
    again = replace(request, ref=secrets.token_hex(12), cache_imports=[where])
    steps: dict[str, bool] = {}

    async def follow() -> None:
        async for event in private.control.follow(again.ref):
            steps.update({vertex.name: vertex.cached for vertex in event.vertexes})

    following = asyncio.create_task(follow())
    await build(private.control, again, auth)
    await asyncio.wait_for(following, 10)
    assert [cached for name, cached in steps.items() if "COPY a /" in name] == [True]


async def test_a_credential_that_cannot_be_read_fails_the_build_with_a_sentence(
    private: Private,
) -> None:
    async def broken(host: str) -> Credential | None:
        raise OSError("cannot open s3cret")

    for tokens in (TokenClient(), None):
        with pytest.raises(SolveError, match="could not be read") as caught:
            await build(private.control, push(f"{private.bearer}/alice/app"), Auth(broken, tokens))
        assert "s3cret" not in str(caught.value)


def finds(**values: bytes) -> Callable[[str], Awaitable[bytes | None]]:
    async def lookup(name: str) -> bytes | None:
        return values.get(name)

    return lookup


async def test_a_step_sees_its_secret_and_the_image_does_not(
    control: Control, stack: Stack
) -> None:
    value = base64.b32encode(os.urandom(10))
    steps = (
        f"RUN --mount=type=secret,id=token,required=true "
        f'test "$(cat /run/secrets/token)" = {value.decode()}\n'
        "RUN test ! -s /run/secrets/token\n"
        "RUN --mount=type=secret,id=other test ! -e /run/secrets/other\n"
    )
    request = solve_of(f"FROM {stack.base_image}\n{steps}")
    asked = await build(control, request, Secrets(finds(token=value)))

    assert asked.calls.count("GetSecret") == 2


@pytest.mark.parametrize(
    ("values", "text"),
    [
        pytest.param({}, "not found", id="missing"),
        pytest.param({"token": b"x" * (500 * 1024 + 1)}, "512001 bytes", id="too large"),
    ],
)
async def test_a_secret_that_is_required_must_be_there(
    control: Control, stack: Stack, values: dict[str, bytes], text: str
) -> None:
    step = f"RUN --mount=type=secret,id=token,required=true true {next(_numbers)}\n"
    with pytest.raises(SolveError, match=text):
        await build(
            control, solve_of(f"FROM {stack.base_image}\n{step}"), Secrets(finds(**values))
        )


CHECK = """\
set -eu
[ "$(/usr/bin/ssh-add -L)" = "$(/busybox cat /key.pub) deploy" ]
/usr/bin/ssh-add -T /key.pub
! /usr/bin/ssh-add -D
"""


async def test_a_step_signs_with_a_key_that_it_cannot_read(control: Control) -> None:
    """OpenSSH's own client lists the key, and verifies what it signed; more it may not do."""
    ssh_add, busybox = program("ssh-add"), program("busybox")
    assert ssh_add is not None
    assert busybox is not None
    files = [ssh_add, *libraries_of(ssh_add)]
    tree = {f"root{path}": path.read_bytes() for path in files}
    tree |= {"busybox": busybox.read_bytes(), "check": CHECK.encode()}
    key, public = new_key()
    tree["key.pub"] = public.encode()
    dockerfile = (
        "FROM scratch\nCOPY --chmod=755 root /\nCOPY --chmod=755 busybox check key.pub /\n"
        'RUN --mount=type=ssh,id=deploy,required=true ["/busybox", "sh", "/check"]\n'
    )
    asked = await build(control, solve_of(dockerfile, **tree), Agents(finds(deploy=key)))

    # Listing, signing, and being told to forget the key, each over a connection of its own.
    assert asked.calls.count("ForwardAgent") == 3


async def test_an_agent_that_is_required_must_be_there(control: Control, stack: Stack) -> None:
    step = f"RUN --mount=type=ssh,required=true true {next(_numbers)}\n"
    with pytest.raises(SolveError, match="default"):
        await build(control, solve_of(f"FROM {stack.base_image}\n{step}"), Agents(finds()))


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitOverSsh]:
    """The stack does not install an SSH server on anybody's machine: it would start to listen."""
    if program("sshd") is None:
        pytest.skip("There is no sshd: install Debian's openssh-server.")
    with serve_git_over_ssh(tmp_path_factory.mktemp("ssh") / "d") as running:
        yield running


async def test_a_repository_over_ssh_is_fetched_with_the_key(
    control: Control, sshd: GitOverSsh, tmp_path: Path
) -> None:
    commit = await asyncio.to_thread(make_repository, tmp_path / "r", REPOSITORY)
    source = GitSource(
        f"{sshd.url}{tmp_path / 'r'}", ssh_agent="git", known_hosts=sshd.known_hosts
    )
    agents = Agents(finds(git=sshd.key))
    await built_from(control, source, commit, agents)


async def test_a_host_that_is_not_known_is_not_believed(
    control: Control, sshd: GitOverSsh, tmp_path: Path
) -> None:
    await asyncio.to_thread(make_repository, tmp_path / "r", REPOSITORY)
    known = "elsewhere.test " + sshd.known_hosts.partition(" ")[2]
    source = GitSource(f"{sshd.url}{tmp_path / 'r'}", ssh_agent="git", known_hosts=known)
    async with Session(control.open_session, Agents(finds(git=sshd.key)).handlers()) as session:
        with pytest.raises(SolveError, match="Host key verification failed"):
            await control.resolve_git(source, session.id)


REPOSITORY = {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "private"}


async def built_from(
    control: Control, source: GitSource, commit: str, *services: Secrets | Agents
) -> None:
    """Resolve and build a private repository, which nobody can without the session's help."""
    with pytest.raises(SolveError):
        await control.resolve_git(source)
    async with Session(control.open_session, Asked(*services).handlers) as session:
        found = await control.resolve_git(source, session.id)
        assert (found.ref, found.commit) == ("refs/heads/main", commit)
        context = definition.git(replace(source, ref=found.ref, commit=found.commit))
        inputs = {"context": context, "dockerfile": context}
        request = Solve(secrets.token_hex(12), inputs=inputs, session=session.id)
        await control.solve(request)


BASIC = "basic " + base64.b64encode(b"x-access-token:t0ken").decode()


@pytest.mark.parametrize("scoped", [True, False])
@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [("token_secret", b"t0ken", BASIC), ("header_secret", b"bearer b34rer", "bearer b34rer")],
)
async def test_a_repository_over_http_is_fetched_with_a_secret(
    control: Control, tmp_path: Path, kind: str, value: bytes, shown: str, scoped: bool
) -> None:
    commit = await asyncio.to_thread(make_repository, tmp_path / "r", REPOSITORY)
    async with serve_git_over_http(tmp_path, shown) as server:
        source = GitSource(f"{server.url}/r/.git", **{kind: "git"})  # type: ignore[arg-type]
        name = "git." + server.url.removeprefix("http://") if scoped else "git"
        await built_from(control, source, commit, Secrets(finds(**{name: value})))

    assert shown in server.shown
