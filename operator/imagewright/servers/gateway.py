"""The front door for clients of BuildKit: mutual TLS, a leased worker for each connection, bytes.

A client keeps all calls of one invocation on one connection (seen with buildctl, and with buildx's
remote driver), so a connection is what a slot is leased for. Nothing but the client's very first
frames is read (`servers.http2`); from then on bytes are copied both ways (`servers.splice`).
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import structlog

from imagewright.metrics import Metrics
from imagewright.servers.guest import Guest
from imagewright.servers.splice import Pipe
from imagewright.servers.wire import Wire, dial
from imagewright.settings import GatewaySettings

log = structlog.get_logger("gateway")
TICK_SECONDS = 1.0
DIAL_SECONDS = 5.0
ACCEPT_PAUSE, BACKLOG = 0.1, 128
DIALS = 3
"""Workers that are tried for one client: it has sent nothing to any of them."""
QUIET_SECONDS = 15.0
"""While draining, who says nothing for so long may go. A client that builds is asked by its daemon
every 5 s whether it is still there (BuildKit's session/grpc.go), and answers."""
BUSY, WAITING = "busy", "waiting"
DENIED, EXHAUSTED, UNAVAILABLE, UNAUTHENTICATED = 7, 8, 14, 16
"""Status codes of gRPC."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom the certificate names: `tenant` shares slots fairly, `key` likes to meet its cache."""

    tenant: str
    key: str


@dataclass(frozen=True, slots=True)
class Upstream:
    """A worker, as unix:///path or tcp://host:port; `server_name` is what TLS expects there."""

    address: str
    tls: ssl.SSLContext | None = None
    server_name: str = ""


class TurnedAway(Exception):
    """The client gets no worker; `status` is gRPC's, the text a sentence that it will print."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class WorkerLost(Exception):
    """The worker does not answer, or went away while it was used."""


Admit = Callable[[Caller], AbstractAsyncContextManager[Upstream]]
"""Waits for a slot; it is given back at the end. Raises TurnedAway where there will be none.

A WorkerLost from inside says that the worker is to be looked at; it is raised on.
"""


class Gateway:
    """Serves once `start` was called, on `port`, until `close`."""

    port: int

    def __init__(
        self, settings: GatewaySettings, tls: ssl.SSLContext, admit: Admit, metrics: Metrics
    ) -> None:
        self._settings, self._tls, self._admit = settings, tls, admit
        self._connections = metrics.gateway_connections
        self._refused, self._bytes = metrics.gateway_refused, metrics.gateway_bytes
        self._tasks: dict[Guest, asyncio.Task[None]] = {}
        self._patience: dict[Guest, asyncio.Timeout] = {}
        self._pipes: dict[Pipe, tuple[int, int]] = {}
        self._closing = False

    async def start(self) -> None:
        """Listen. Raises OSError where the address cannot be had."""
        self._door = await listening(self._settings.host, self._settings.port)
        self.port = int(self._door.getsockname()[1])
        self._accepting = asyncio.create_task(self._accept(), name="gateway door")
        self._ticking = asyncio.create_task(self._tick(), name="gateway")

    async def close(self, grace: float) -> None:
        """Accept nobody, send those away who wait, let builds end for `grace` seconds."""
        self._closing = True
        self._accepting.cancel()
        self._door.close()
        log.info("Gateway drains", connections=len(self._pipes), seconds=grace)
        for patience in self._patience.values():
            if not patience.expired():
                patience.reschedule(asyncio.get_running_loop().time())
        # Those who have not said who they are have nothing to lose.
        for guest, task in list(self._tasks.items()):
            if not guest.known:
                task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=grace)
        left = [*self._tasks.values(), self._ticking, self._accepting]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        # What was aborted closes its socket in the loop's next turn.
        await asyncio.sleep(0)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                own, peer = await loop.sock_accept(self._door)
            except OSError as error:
                # A client that is gone already, or no file left for one: others may come.
                log.warning("A client was not accepted", why=str(error))
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._welcome(Guest(own, str(peer[0])))

    def _welcome(self, guest: Guest) -> None:
        task = asyncio.create_task(self._attend(guest), name="gateway client")
        self._tasks[guest] = task
        guest.lost = task.cancel
        task.add_done_callback(lambda _: self._left(guest))

    def _left(self, guest: Guest) -> None:
        task = self._tasks.pop(guest)
        if not task.cancelled() and (error := task.exception()):
            log.error("Client broke off", peer=guest.peer, exc_info=error)

    async def _attend(self, guest: Guest) -> None:
        try:
            async with asyncio.timeout(self._settings.handshake_seconds):
                subject = await guest.handshake(self._tls)
            await self._serve(guest, caller_of(subject))
        except TurnedAway as error:
            self._count(error.reason, guest, str(error))
            await guest.send_away(error.status, str(error))
        except TimeoutError:
            self._count("handshake", guest, "too slow a handshake")
        except OSError as error:
            # ssl.SSLError is one: no certificate, a foreign one, or no TLS at all.
            self._count("tls", guest, str(error))
        finally:
            guest.abort()

    async def _serve(self, guest: Guest, caller: Caller) -> None:
        for _ in range(DIALS):
            with contextlib.suppress(WorkerLost):
                async with contextlib.AsyncExitStack() as stack:
                    upstream = await self._admitted(guest, caller, stack)
                    with self._connections.labels(self._settings.pool, BUSY).track_inprogress():
                        worker = await self._dial(upstream)
                        await self._copy(guest, worker)
                        return
            if guest.spliced:
                return
        raise TurnedAway(
            UNAVAILABLE,
            "worker",
            f"Workers of pool {self._settings.pool} were there, and did not answer: try again.",
        )

    async def _admitted(
        self, guest: Guest, caller: Caller, stack: contextlib.AsyncExitStack
    ) -> Upstream:
        """A worker, of which `stack` lets go. Raises TurnedAway after too long a wait."""
        pool, seconds = self._settings.pool, self._settings.wait_seconds
        try:
            with self._connections.labels(pool, WAITING).track_inprogress():
                async with asyncio.timeout(0 if self._closing else seconds) as patience:
                    self._patience[guest] = patience
                    return await stack.enter_async_context(self._admit(caller))
        except TimeoutError:
            if self._closing:
                raise TurnedAway(
                    UNAVAILABLE, "closing", "The gateway is going down: try again."
                ) from None
            raise TurnedAway(
                EXHAUSTED,
                "waited",
                f"No slot of pool {pool} came free in {seconds:g} s: try again later.",
            ) from None
        finally:
            self._patience.pop(guest, None)

    async def _dial(self, upstream: Upstream) -> Wire:
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                return await dial(upstream.address, upstream.tls, upstream.server_name)
        except OSError as error:
            # TimeoutError is one.
            log.warning("Worker not reached", address=upstream.address, why=str(error))
            raise WorkerLost(upstream.address) from error

    async def _copy(self, guest: Guest, worker: Wire) -> None:
        """Until one end is gone. Raises WorkerLost where that was the worker."""
        pipe = guest.splice(worker)
        self._pipes[pipe] = (0, 0)
        try:
            if await pipe.ended:
                raise WorkerLost
        except asyncio.CancelledError:
            pipe.abort()
            raise
        finally:
            self._measure(pipe)
            del self._pipes[pipe]

    async def _tick(self) -> None:
        """Count bytes, and dismiss who is idle."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            idle = self._settings.idle_seconds
            limit = min(idle, QUIET_SECONDS) if self._closing else idle
            for pipe in list(self._pipes):
                self._measure(pipe)
                if loop.time() - pipe.quiet_since >= limit:
                    pipe.dismiss()

    def _measure(self, pipe: Pipe) -> None:
        before, now = self._pipes[pipe], pipe.moved()
        for way, old, new in zip(("up", "down"), before, now, strict=True):
            self._bytes.labels(self._settings.pool, way).inc(new - old)
        self._pipes[pipe] = now

    def _count(self, reason: str, guest: Guest, why: str) -> None:
        self._refused.labels(self._settings.pool, reason).inc()
        log.info("Client refused", reason=reason, why=why, peer=guest.peer)


def caller_of(subject: dict[str, str]) -> Caller:
    """Whom a certificate's subject names. Raises TurnedAway where it names nobody."""
    key = subject.get("commonName", "")
    tenant = subject.get("organizationName", "") or key
    if not key:
        raise TurnedAway(
            UNAUTHENTICATED,
            "nameless",
            "The client's certificate has no common name (CN): make one that says who you are.",
        )
    return Caller(tenant, key)


async def serve_gateway(settings: GatewaySettings, admit: Admit, metrics: Metrics) -> Gateway:
    """A gateway that listens. Raises OSError where a file or the address cannot be had."""
    tls = await asyncio.to_thread(server_tls, settings)
    gateway = Gateway(settings, tls, admit, metrics)
    await gateway.start()
    return gateway


def server_tls(settings: GatewaySettings) -> ssl.SSLContext:
    """TLS in which both sides show a certificate; blocks. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(settings.cert, settings.key)
    context.load_verify_locations(settings.ca)
    # gRPC for Go takes no server that does not say so.
    context.set_alpn_protocols(["h2"])
    # A client makes one connection; there is nothing to resume.
    context.num_tickets = 0
    return context


async def listening(host: str, port: int) -> socket.socket:
    """A socket that clients may connect to. Raises OSError where the address cannot be had."""
    loop = asyncio.get_running_loop()
    family, *_, where = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
    door = socket.create_server(where, family=family, backlog=BACKLOG)
    door.setblocking(False)
    return door
