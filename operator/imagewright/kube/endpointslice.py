"""An EndpointSlice (discovery.k8s.io/v1), as far as it says where workers are."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from imagewright.ports import Endpoint


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class Metadata(_Part):
    """The name, and the version that a watch goes on from. A bookmark has no name."""

    name: str = ""
    resource_version: str


class Conditions(_Part):
    """What is not known is null, and an endpoint of which nothing is known counts as ready."""

    ready: bool | None = None
    terminating: bool | None = None


class Target(_Part):
    """The object behind an endpoint."""

    kind: str = ""
    name: str = ""


class Entry(_Part):
    """One endpoint; of several addresses, which are all good, the first is taken."""

    addresses: list[str] = []
    conditions: Conditions | None = None
    target_ref: Target | None = None

    @property
    def usable(self) -> bool:
        """Whether work may be sent there. One that terminates may say that it is ready."""
        told = self.conditions or Conditions()
        return bool(self.addresses) and told.ready is not False and not told.terminating

    def endpoint(self, port: int) -> Endpoint:
        """Where it is, under its Pod's name."""
        host, target = self.addresses[0], self.target_ref
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        named = target is not None and target.kind == "Pod" and target.name
        return Endpoint(target.name if target and named else address, address)


class Port(_Part):
    """A port of every endpoint of the slice."""

    name: str | None = None
    port: int | None = None


class EndpointSlice(_Part):
    """Some of a Service's endpoints; there are at most 1000 in one."""

    metadata: Metadata
    endpoints: list[Entry] | None = None
    ports: list[Port] | None = None

    def port(self, wanted: str) -> int | None:
        """The number of the port that has this name, or this number; None where none has.

        A number counts as it stands where the slice names no ports: that is how a Service without
        ports, which only gives Pods their names, is written.
        """
        ports = [port for port in self.ports or () if port.port is not None]
        named = [port.port for port in ports if (port.name or "") == wanted]
        numbers = named or [port.port for port in ports if str(port.port) == wanted]
        if not ports and wanted.isdecimal():
            return int(wanted)
        return numbers[0] if numbers else None

    def workers(self, wanted: str) -> frozenset[Endpoint]:
        """The endpoints at that port to which work may be sent."""
        port = self.port(wanted)
        if port is None:
            return frozenset()
        return frozenset(entry.endpoint(port) for entry in self.endpoints or () if entry.usable)


class Page(_Part):
    """A part of a list; the version is that of the whole list."""

    metadata: Metadata
    items: list[EndpointSlice]


def united(slices: Iterable[frozenset[Endpoint]]) -> frozenset[Endpoint]:
    """All of them, each name once.

    While endpoints are moved between slices one may be in two; a Pod of two address families is
    always, and IPv4 is taken then.
    """
    by_name: dict[str, Endpoint] = {}
    every = {endpoint for some in slices for endpoint in some}
    for endpoint in sorted(every, key=lambda one: (one.address.startswith("["), one.address)):
        by_name.setdefault(endpoint.name, endpoint)
    return frozenset(by_name.values())
