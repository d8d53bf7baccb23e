"""What keeps the workers of a pool those of its Service, and as many as its work asks for."""

from collections.abc import Awaitable, Callable
from functools import partial

from imagewright.domain.autoscale import Bounds
from imagewright.kube.client import KubeClient
from imagewright.kube.endpoints import ServiceRef, endpoints
from imagewright.kube.scale import StatefulSet
from imagewright.pools.autoscale import Autoscaler, load_of
from imagewright.pools.discovery import Discovery, Opener
from imagewright.pools.guard import Guard
from imagewright.pools.line import Line
from imagewright.settings import PoolSettings

Keeper = Callable[[], Awaitable[None]]
"""Runs until it is cancelled."""


def keepers_of(
    settings: PoolSettings, line: Line, opener: Opener, client: KubeClient
) -> list[Keeper]:
    """What must run for the pool besides its line; nothing where its workers are addresses."""
    service, scaling = settings.service, settings.autoscale
    if service is None:
        return []
    ref = ServiceRef(service.namespace, service.name, service.port)
    discovery = Discovery(line.pool, opener, scaling.stateful_set if scaling else "")
    follow = partial(discovery.run, endpoints(client, ref))
    if scaling is None:
        return [follow]
    workers = StatefulSet(client, service.namespace, scaling.stateful_set)
    load = partial(load_of, line, scaling.stateful_set, scaling.max * settings.slots)
    bounds = Bounds(settings.slots, scaling.min, scaling.max, scaling.idle_seconds)
    scaler = Autoscaler(workers, load, discovery.limit, bounds)
    line.waits, line.pool.growth = scaler.nudge, scaler.growth
    return [follow, scaler.run, Guard(workers, load).run]
