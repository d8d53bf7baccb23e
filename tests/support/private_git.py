"""Private git repositories on loopback: over http with a header, and over SSH with a key."""

import asyncio
import base64
import getpass
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from devstack.debian import program
from devstack.server import Command, await_ready, free_port, listening, start


@dataclass
class GitOverHttp:
    """Serves repositories below `folder` to whoever shows one of the allowed headers.

    `shown` are the Authorization headers that came; `redirect` sends every request elsewhere.
    """

    folder: Path
    allowed: set[str]
    url: str = ""
    redirect: str = ""
    shown: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """One request, as CGI wants it (git-http-backend(1))."""
        shown = request.headers.get("Authorization", "")
        self.shown.append(shown)
        if self.redirect:
            raise web.HTTPFound(self.redirect + request.path_qs)
        if shown not in self.allowed:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
        body = await request.read()
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            # Who runs the tests may not be who owns what they wrote.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        process = await asyncio.create_subprocess_exec(
            "git",
            "http-backend",
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate(body)
        head, _, content = out.partition(b"\r\n\r\n")
        lines = [line.partition(": ") for line in head.decode().splitlines()]
        headers = {name: value for name, _, value in lines}
        status = int(headers.pop("Status", "200").split()[0])
        return web.Response(status=status, body=content, headers=headers)


def basic_header(user: str, password: str) -> str:
    """The header that shows these."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@asynccontextmanager
async def serve_git_over_http(folder: Path, *allowed: str) -> AsyncIterator[GitOverHttp]:
    """Serve `folder` on a free port of loopback."""
    service = GitOverHttp(folder, set(allowed))
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", service.answer)
    # git packs what it asks for, and its backend unpacks it.
    runner = web.AppRunner(application, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield service
    finally:
        await runner.cleanup()


@dataclass(frozen=True, slots=True)
class GitOverSsh:
    """A running sshd: where it is, what its known_hosts line is, and the key that it lets in."""

    url: str
    known_hosts: str
    key: bytes = field(repr=False)


@contextmanager
def serve_git_over_ssh(folder: Path) -> Iterator[GitOverSsh]:
    """An sshd of the user who runs this; paths in its URLs are those of the file system."""
    sshd = program("sshd")
    if sshd is None:
        raise RuntimeError("sshd is missing: install Debian's openssh-server.")
    folder.mkdir(mode=0o700)
    host_key, host = new_key()
    user_key, user = new_key()
    (folder / "host").write_bytes(host_key)
    (folder / "host").chmod(0o600)
    (folder / "authorized").write_text(user)
    port = free_port()
    options = {
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "ListenAddress": "127.0.0.1",
        "Port": port,
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PidFile": "none",
    }
    flags = [f"-o{name}={value}" for name, value in options.items()]
    if os.geteuid() == 0:
        # Debian makes this folder when its service starts, which it does not here.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    arguments = [str(sshd), "-D", "-e", "-f", os.devnull, *flags]
    command = Command("sshd", arguments, lambda: listening(port))
    server = await_ready(command, start(command, folder))
    try:
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}"
        yield GitOverSsh(url, f"[127.0.0.1]:{port} {host}", user_key)
    finally:
        server.stop()


def new_key() -> tuple[bytes, str]:
    """A new key as ssh-keygen writes it, and the line of its public half."""
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return text, line.decode()


def libraries_of(path: Path) -> list[Path]:
    """What the dynamic linker loads for a program, and the linker itself."""
    said = subprocess.run(["ldd", str(path)], check=True, capture_output=True, text=True).stdout
    return [Path(word) for word in said.split() if word.startswith("/")]
