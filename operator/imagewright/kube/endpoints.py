"""The workers behind a Service, by its EndpointSlices: a list, then a watch from there."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog
from pydantic import BaseModel, ValidationError

from imagewright.kube.client import KubeClient, translate
from imagewright.kube.endpointslice import EndpointSlice, Page, united
from imagewright.ports import Endpoint, Error

log = structlog.get_logger("endpoints")
LABEL = "kubernetes.io/service-name"
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds between two watches, and at most where none says anything."""


@dataclass(frozen=True, slots=True)
class ServiceRef:
    """A Service, and which of its Pods' ports: its name, or the number that the Pods listen on."""

    namespace: str
    name: str
    port: str


async def endpoints(
    client: KubeClient, service: ServiceRef
) -> AsyncGenerator[frozenset[Endpoint], None]:
    """The endpoints that are ready and not about to end, at first and whenever they change.

    Never ends, and raises nothing: while the API server is away the last known ones stay. There is
    no first set before the API server has answered once.
    """
    view = View(service)
    told: frozenset[Endpoint] | None = None
    pause = FIRST_PAUSE
    while True:
        try:
            async with aclosing(view.follow(client)) as looks:
                async for heard in looks:
                    # A list that is answered does not make a watch that is not.
                    pause = FIRST_PAUSE if heard else pause
                    if told != view.found():
                        told = view.found()
                        yield told
        except (Error, ValidationError) as error:
            view.version = ""
            log.warning("The workers are listed again", service=service.name, why=str(error))
        await _rest(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


async def _rest(seconds: float) -> None:
    # Many operators must not knock in step.
    await asyncio.sleep(seconds * random.uniform(0.5, 1.5))  # noqa: S311  # no secret


class Happening(BaseModel):
    """An event of a watch."""

    type: str
    object: dict[str, object]


@dataclass(slots=True)
class View:
    """The slices of one Service as they were seen last; an empty version asks for a list."""

    service: ServiceRef
    version: str = ""
    _slices: dict[str, frozenset[Endpoint]] = field(default_factory=dict)

    def found(self) -> frozenset[Endpoint]:
        """The endpoints of all slices."""
        return united(self._slices.values())

    async def follow(self, client: KubeClient) -> AsyncGenerator[bool, None]:
        """See what is there, then what happens; False after the list, True after each event.

        Ends where the server ends the watch; the next one goes on from there. Raises an Error, or
        ValidationError: then what is known may be too old to go on from.
        """
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self.service.namespace}/endpointslices"
        params = {"labelSelector": f"{LABEL}={self.service.name}"}
        if not self.version:
            await self._list(client, path, params)
            yield False
        params |= {"resourceVersion": self.version, "allowWatchBookmarks": "true"}
        async with aclosing(client.watch(path, params)) as events:
            async for event in events:
                self._see(Happening.model_validate(event))
                yield True

    async def _list(self, client: KubeClient, path: str, params: dict[str, str]) -> None:
        slices: dict[str, frozenset[Endpoint]] = {}
        version = ""
        async for body in client.pages(path, params):
            page = Page.model_validate(body)
            for seen in page.items:
                slices |= self._read(seen)
            version = page.metadata.resource_version
        self._slices, self.version = slices, version

    def _see(self, event: Happening) -> None:
        if event.type == "ERROR":
            code = event.object.get("code")
            status = code if isinstance(code, int) else 500
            raise translate(status, "a watch of EndpointSlices", str(event.object).encode())
        seen = EndpointSlice.model_validate(event.object)
        if event.type == "DELETED":
            self._slices.pop(seen.metadata.name, None)
        elif event.type != "BOOKMARK":
            self._slices |= self._read(seen)
        self.version = seen.metadata.resource_version

    def _read(self, seen: EndpointSlice) -> dict[str, frozenset[Endpoint]]:
        port = self.service.port
        if seen.endpoints and seen.port(port) is None:
            ports = ", ".join(f"{one.name or 'unnamed'}: {one.port}" for one in seen.ports or ())
            log.warning(
                "The Service has no such port: write one that it has, by its name or number",
                service=self.service.name,
                port=port,
                ports=ports,
            )
        return {seen.metadata.name: seen.workers(port)}
