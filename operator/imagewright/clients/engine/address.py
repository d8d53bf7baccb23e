"""Where an engine listens, and what TLS to it needs."""

import asyncio
import os
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Tls:
    """What TLS needs, as PEM bytes. `server_name` overrides the host of the address."""

    ca: bytes
    cert: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("A client certificate and its key go together: give both or none.")

    async def context(self) -> ssl.SSLContext:
        """The settings for a connection. Raises ssl.SSLError where the PEM holds none."""
        return await asyncio.to_thread(self._context)

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca.decode())
        # An engine speaks HTTP/1.1 only where it is asked for it.
        context.set_alpn_protocols(["http/1.1"])
        if self.cert is not None and self.key is not None:
            _load(context, self.cert + b"\n" + self.key)
        return context


@dataclass(frozen=True, slots=True)
class Address:
    """A unix socket's `path`, or else a `host` with its `port`."""

    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def authority(self) -> str:
        """The host of our requests. What it is on a unix socket is nobody's business."""
        if self.path:
            return "engine"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse(text: str) -> Address:
    """Read `unix:///path` or `tcp://host:port`. Raises ValueError for anything else."""
    parts = urlsplit(text)
    if parts.scheme == "unix" and parts.path and not parts.netloc:
        return Address(path=parts.path)
    if parts.scheme == "tcp" and parts.hostname and _port(text) and parts.path in {"", "/"}:
        return Address(host=parts.hostname, port=_port(text))
    raise ValueError(
        f"{text!r} is no address of an engine: write unix:///path or tcp://host:port."
    )


def _port(text: str) -> int:
    try:
        return urlsplit(text).port or 0
    except ValueError:
        return 0


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Give the key to OpenSSL, which takes files only: one that is in memory, and soon gone."""
    number = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(number, "wb", closefd=False) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{number}")
    finally:
        os.close(number)
