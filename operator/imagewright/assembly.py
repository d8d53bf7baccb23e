"""Workers put together from the settings. Only here, and in main, are adapters picked."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from imagewright.admission import Admission, WorkerTls
from imagewright.backend import Backend
from imagewright.builders.buildkit import BuildKitBuilder
from imagewright.builders.classic import ClassicBuilder
from imagewright.caches.buildkit import BuildKitCache
from imagewright.caches.engine import EngineCache
from imagewright.caches.sources import Limits, SourceCache
from imagewright.clients.buildkit.channel import Tls
from imagewright.clients.buildkit.control import Control
from imagewright.clients.buildkit.errors import BuildKitError
from imagewright.clients.engine.address import Tls as EngineTls
from imagewright.clients.engine.address import parse
from imagewright.clients.engine.bridge import bridge
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import EngineError
from imagewright.clients.registry.access import Access
from imagewright.clients.registry.credential import Credential
from imagewright.clients.registry.tokens import TokenClient
from imagewright.domain.plan import BUILDKIT, CLASSIC
from imagewright.domain.quantity import bytes_of
from imagewright.failure import buildkit as of_buildkit
from imagewright.failure import engine as of_engine
from imagewright.images.engine import EngineStore
from imagewright.images.registry import RegistryStore
from imagewright.metrics import Metrics
from imagewright.pools.discovery import Opener
from imagewright.pools.pool import Pool, Terms, Worker
from imagewright.ports import Builder, Cache, ImageStore, Keyring, Sources
from imagewright.scheduler import Scheduler
from imagewright.servers.gateway import Gateway, serve_gateway
from imagewright.settings import ENGINE, PoolSettings, RegistrySettings, Settings, TlsSettings
from imagewright.sources.egress import Egress
from imagewright.sources.fetch import SourceFetcher
from imagewright.sources.git import GitFetcher
from imagewright.sources.http import HttpFetcher
from imagewright.sources.oci import OciFetcher

RegistryAccess = Callable[[Keyring], Access]
"""How registries are spoken to in the name of a build."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all workers have in common: images in registries, and sources that we fetch."""

    store: Callable[[RegistryAccess], ImageStore]
    sources: Sources
    cache: Cache
    access: RegistryAccess
    tokens: TokenClient


@asynccontextmanager
async def shared_of(settings: Settings, clock: Callable[[], datetime]) -> AsyncIterator[Shared]:
    """The parts that no worker has for itself.

    Raises OSError where a file cannot be read, Unavailable where the folder for sources is none.
    """
    tokens, access = await access_of(settings.registries)
    own = settings.sources
    limits = Limits(bytes_of(own.max_used_space), timedelta(seconds=own.max_age_seconds))
    egress = Egress(allow_loopback=own.allow_loopback)
    async with SourceCache(own.folder / "trees", limits) as cache:
        oci = OciFetcher(access, egress)
        fetcher = SourceFetcher(cache, GitFetcher(egress), HttpFetcher(egress), oci)
        store = partial(RegistryStore, folder=own.folder, clock=clock)
        yield Shared(store, fetcher, cache, access, tokens)


async def access_of(settings: RegistrySettings) -> tuple[TokenClient, RegistryAccess]:
    """How registries are spoken to. Raises OSError where the CA's file cannot be read."""
    plain = frozenset(settings.plain_http)
    tls = await asyncio.to_thread(trusted, settings.ca)
    tokens = TokenClient(plain, tls)

    def access(keyring: Keyring) -> Access:
        async def credentials(host: str) -> Credential | None:
            found = await keyring.login(host)
            return Credential(found.username, found.password) if found else None

        return Access(credentials, tokens, plain, tls)

    return tokens, access


def trusted(ca: Path | None) -> ssl.SSLContext | None:
    """TLS that trusts this authority besides those of the system; None: the system's only."""
    if ca is None:
        return None
    context = ssl.create_default_context()
    context.load_verify_locations(ca)
    return context


async def opener_of(settings: PoolSettings, shared: Shared) -> Opener:
    """How the pool's workers are opened. Raises OSError where a file for TLS cannot be read."""
    if settings.registries is not None:
        tokens, access = await access_of(settings.registries)
        shared = replace(shared, access=access, tokens=tokens)
    tls = await asyncio.to_thread(read_tls, settings.tls) if settings.tls else None

    async def opener(address: str) -> Worker:
        return await open_worker(address, settings, tls, shared)

    return opener


@asynccontextmanager
async def pool_of(settings: PoolSettings, opener: Opener, metrics: Metrics) -> AsyncIterator[Pool]:
    """The pool, its workers each with a warm connection of its own; closed at the end.

    Those behind a Service come later: see workforce.
    """
    pool = Pool(terms_of(settings), metrics)
    try:
        for address in settings.workers:
            pool.add(await opener(address))
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def gateway_of(
    settings: Settings, scheduler: Scheduler, metrics: Metrics, now: Callable[[], datetime]
) -> AsyncIterator[Gateway | None]:
    """The gateway, where the settings have one. Raises OSError where a file cannot be read."""
    own = settings.gateway
    if own is None:
        yield None
        return
    pool = next(pool for pool in settings.pools if pool.name == own.pool)
    tls = await asyncio.to_thread(worker_tls, pool.tls) if pool.tls else WorkerTls()
    admission = Admission(scheduler, own, tls, now)
    gateway = await serve_gateway(own, admission.admit, metrics)
    try:
        yield gateway
    finally:
        await gateway.close(0)


def worker_tls(settings: TlsSettings) -> WorkerTls:
    """TLS for connections whose bytes are a client's own; blocks. Raises OSError."""
    context = ssl.create_default_context(cafile=settings.ca)
    context.set_alpn_protocols(["h2"])
    if settings.cert is not None:
        context.load_cert_chain(settings.cert, settings.key)
    return WorkerTls(context, settings.server_name)


def terms_of(settings: PoolSettings) -> Terms:
    """Who may use the pool, and for what."""
    return Terms(
        settings.name,
        settings.slots,
        frozenset(settings.platforms),
        frozenset(settings.networks),
        frozenset(settings.namespaces),
        settings.namespace_slots,
    )


async def open_worker(
    address: str, settings: PoolSettings, tls: Tls | None, shared: Shared
) -> Worker:
    """A worker of the pool on the daemon at the address; `close` ends what it holds open."""
    async with AsyncExitStack() as stack:
        if settings.kind == "docker" or address.startswith(ENGINE):
            made = engine_worker(address.removeprefix(ENGINE), tls, shared)
        else:
            made = buildkit_worker(address, tls, shared)
        worker = await stack.enter_async_context(made)
        worker.slots, worker.close = settings.slots, stack.pop_all().aclose
        return worker


@asynccontextmanager
async def buildkit_worker(address: str, tls: Tls | None, shared: Shared) -> AsyncIterator[Worker]:
    """A worker with one slot on a BuildKit daemon."""
    control = Control(address, tls)

    async def probe() -> frozenset[str]:
        try:
            await control.info()
            found = await control.workers()
        except BuildKitError as error:
            raise of_buildkit.translate(error) from error
        return frozenset(name for one in found for name in one.platforms)

    builders: dict[str, Builder] = {BUILDKIT: BuildKitBuilder(control, shared.tokens)}
    backend = Backend(builders, shared.store(shared.access), shared.sources)
    try:
        yield Worker(address, 1, backend, probe, {BUILDKIT: BuildKitCache(control)}, address)
    finally:
        await control.close()


@asynccontextmanager
async def engine_worker(address: str, tls: Tls | None, shared: Shared) -> AsyncIterator[Worker]:
    """A worker with one slot on a Docker Engine: its classic builder, and its BuildKit."""
    own = EngineTls(tls.ca, tls.cert, tls.key, tls.server_name) if tls else None
    engine = Engine(address, own)

    async def probe() -> frozenset[str]:
        try:
            await engine.ping()
        except EngineError as error:
            raise of_engine.translate(error) from error
        return frozenset()

    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.close)
        control = Control(await stack.enter_async_context(bridge(parse(address), own)))
        stack.push_async_callback(control.close)
        builders: dict[str, Builder] = {
            BUILDKIT: BuildKitBuilder(control, shared.tokens, in_engine=True),
            CLASSIC: ClassicBuilder(engine),
        }
        backend = Backend(builders, EngineStore(engine), shared.sources)
        name = ENGINE + address
        yield Worker(name, 1, backend, probe, {"engine": EngineCache(engine)}, address)


def read_tls(settings: TlsSettings) -> Tls:
    """The files' content. Raises OSError where one cannot be read."""

    def content(path: Path | None) -> bytes | None:
        return path.read_bytes() if path else None

    return Tls(
        settings.ca.read_bytes(),
        content(settings.cert),
        content(settings.key),
        settings.server_name,
    )
