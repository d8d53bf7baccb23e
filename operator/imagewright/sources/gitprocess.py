"""git as a child process that reads no configuration but ours, and knows no more than it must.

How a credential gets there: it lies in a memfd, which is memory under a descriptor, on no disk.
git's helper reads a password from the inherited descriptor; ssh closes what it inherits, and so
opens a key by our process's own /proc entry, which only this user can. Neither argv nor the
environment, which other processes may see, hold anything but the descriptor's number.
"""

import asyncio
import os
import shlex
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from imagewright.api.reason import Reason
from imagewright.ports import Rejected
from imagewright.sources.credential import ANYBODY, Opener
from imagewright.sources.remote import Remote

OUTPUT = 64 << 20
"""Bytes of output that are read; a repository with more names is refused."""
STDERR = 8 << 10
PASSED = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_EXEC_PATH")
SAFE = (
    "protocol.allow=never",
    "protocol.http.allow=always",
    "protocol.https.allow=always",
    "protocol.git.allow=always",
    "protocol.ssh.allow=always",
    "protocol.file.allow=never",
    "protocol.ext.allow=never",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.symlinks=true",
    "core.askPass=",
    "credential.helper=",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "http.followRedirects=false",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
    "init.defaultBranch=none",
)
"""A redirect is never followed, since it would lead past the check of the address."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How git ended, and what it said."""

    code: int
    output: bytes = field(repr=False)
    words: str


class TooMuch(Exception):
    """git had more to say than is read."""


@dataclass(frozen=True, slots=True)
class Access:
    """How git gets to one repository: its arguments, its environment, and what it inherits."""

    url: str
    config: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    descriptors: tuple[int, ...] = ()


@contextmanager
def access(remote: Remote, addresses: Sequence[str], opener: Opener | None) -> Iterator[Access]:
    """The way to a repository, at the addresses that were checked, while the context lasts.

    Raises Rejected (InvalidCredentials) where the credential is one for another way.
    """
    with ExitStack() as stack:
        if remote.scheme == "ssh":
            yield _by_ssh(remote, addresses, opener, stack)
        elif remote.scheme == "git":
            yield Access(remote.at(addresses[0]))
        else:
            yield _by_http(remote, addresses, opener, stack)


def _by_http(
    remote: Remote, addresses: Sequence[str], opener: Opener | None, stack: ExitStack
) -> Access:
    shown = ",".join(f"[{one}]" if ":" in one else one for one in addresses)
    # Without this git would look the name up again, and might find something else.
    pinned = f"http.curloptResolve={remote.host}:{remote.port}:{shown}"
    config = () if remote.host in addresses else (pinned,)
    if opener is None:
        return Access(remote.url, config)
    if opener.key:
        raise Rejected(
            "spec.source.git.secretRef holds a key for ssh, but spec.source.git.url is no ssh "
            "URL: write git@host:path, or give the Secret username and password, or token.",
            Reason.INVALID_CREDENTIALS,
        )
    user, word = opener.username or ANYBODY, opener.token or opener.password
    number = stack.enter_context(_memory(f"username={user}\npassword={word}\n".encode()))
    helper = f"!f() {{ test $1 = get && cat /proc/self/fd/{number}; }}; f"
    return Access(
        remote.url,
        (*config, f"credential.{remote.section}.helper={helper}"),
        descriptors=(number,),
    )


def _by_ssh(
    remote: Remote, addresses: Sequence[str], opener: Opener | None, stack: ExitStack
) -> Access:
    if opener is None or not opener.key:
        raise Rejected(
            "spec.source.git.url is one of ssh, which needs a key: name a Secret with "
            "ssh-privatekey in spec.source.git.secretRef.",
            Reason.INVALID_CREDENTIALS,
        )
    key = stack.enter_context(_memory(opener.key.rstrip(b"\n") + b"\n"))
    known, strict = "/dev/null", "no"
    if opener.known_hosts:
        own = stack.enter_context(_memory(opener.known_hosts))
        known, strict = f"/proc/{os.getpid()}/fd/{own}", "yes"
    options = {
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "BatchMode": "yes",
        "StrictHostKeyChecking": strict,
        "UserKnownHostsFile": known,
        "GlobalKnownHostsFile": "/dev/null",
        "UpdateHostKeys": "no",
        "HostName": addresses[0],
        "HostKeyAlias": remote.host if remote.port == 22 else f"[{remote.host}]:{remote.port}",
        "ConnectTimeout": "15",
        "ServerAliveInterval": "15",
        "ForwardAgent": "no",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "ProxyCommand": "none",
        "LogLevel": "ERROR",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    command = shlex.join(["ssh", "-F", "/dev/null", "-i", f"/proc/{os.getpid()}/fd/{key}", *words])
    environment = (("GIT_SSH_COMMAND", command), ("GIT_SSH_VARIANT", "ssh"))
    return Access(remote.url, environment=environment)


@contextmanager
def _memory(content: bytes) -> Iterator[int]:
    """A descriptor of memory that holds the content, for this user only."""
    number = os.memfd_create("credential", os.MFD_CLOEXEC)
    try:
        os.fchmod(number, 0o600)
        os.pwrite(number, content, 0)
        yield number
    finally:
        os.close(number)


@asynccontextmanager
async def home() -> AsyncIterator[Path]:
    """An empty folder that git takes for its user's."""
    folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="imagewright-git-")
    try:
        yield Path(folder.name)
    finally:
        await asyncio.to_thread(folder.cleanup)


async def run(arguments: Sequence[str], folder: Path, way: Access) -> Ended:
    """Run git in `folder`. Cancelled, it and all that it started are killed, and waited for.

    Raises TooMuch, FileNotFoundError where there is no git.
    """
    config = [word for one in (*SAFE, *way.config) for word in ("-c", one)]
    async with home() as empty:
        process = await asyncio.create_subprocess_exec(
            "git",
            *config,
            *arguments,
            cwd=folder,
            env=_environment(empty, way),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=way.descriptors,
        )
        try:
            assert process.stdout is not None, "it is a pipe"  # noqa: S101  # for the types
            assert process.stderr is not None, "it is a pipe"  # noqa: S101  # for the types
            output, words = await asyncio.gather(_all(process.stdout), _tail(process.stderr))
            code = await process.wait()
        finally:
            # Its children, too, and also where git itself ended well: one may have stayed.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Ended(code, output, words.decode(errors="replace").strip())


def _environment(empty: Path, way: Access) -> dict[str, str]:
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    return {
        **passed,
        "HOME": str(empty),
        "XDG_CONFIG_HOME": str(empty),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": "/",
        **dict(way.environment),
    }


async def _all(stream: asyncio.StreamReader) -> bytes:
    found = bytearray()
    while data := await stream.read(64 << 10):
        found += data
        if len(found) > OUTPUT:
            raise TooMuch
    return bytes(found)


async def _tail(stream: asyncio.StreamReader) -> bytes:
    found = b""
    while data := await stream.read(64 << 10):
        found = (found + data)[-STDERR:]
    return found
