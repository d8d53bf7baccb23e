"""What an attempt may read in its own namespace: Secrets and ConfigMaps, each of them once."""

import base64
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from imagewright.api.reason import Reason
from imagewright.domain.credential import Login
from imagewright.domain.dockerconfig import InvalidConfig, host_of, logins_of
from imagewright.domain.plan import Oci, Plan
from imagewright.kube.lookout import Lookout
from imagewright.ports import Gone, Missing, Rejected

PUBLIC = frozenset({"username", "known_hosts", "ca.crt", "tls.crt"})
"""Keys whose values are no secrets; masked, a name such as github would vanish from every URL."""
SHORTEST_MASK = 6
"""Masking every occurrence of a shorter value would tear texts apart and hide little."""


class Reader(Protocol):
    """What reads an object by its path; the KubeClient is one."""

    async def get(self, path: str) -> dict[str, Any]:
        """The object. Raises Gone."""
        ...


class NamespaceKeyring:
    """One attempt's ports.WatchedKeyring: nothing outside of its namespace can be named.

    What it has read stays as it was, so that a Secret which is rotated or deleted while the
    attempt runs counts from the next one, which has a keyring of its own.
    """

    def __init__(self, client: Reader, namespace: str, plan: Plan, lookout: Lookout) -> None:
        self._client, self._namespace, self._lookout = client, namespace, lookout
        own = (plan.source.secret,) if isinstance(plan.source, Oci) and plan.source.secret else ()
        self._logins = (*own, *plan.access.logins)
        self._account = plan.access.service_account
        self._bodies: dict[str, dict[str, Any]] = {}
        self._masks: set[str] = set()
        self._seen: dict[str, str] = {}
        """The version of all that was read, by path; empty where nothing was there."""

    async def secret(self, name: str) -> Mapping[str, bytes]:
        """The entries of a Secret."""
        body = await self._read("secrets", "Secret", name)
        entries = {key: base64.b64decode(value) for key, value in (body.get("data") or {}).items()}
        hidden = (value for key, value in entries.items() if key not in PUBLIC)
        self._remember(*(value.decode(errors="ignore") for value in hidden))
        return entries

    async def config(self, name: str) -> Mapping[str, bytes]:
        """The entries of a ConfigMap."""
        body = await self._read("configmaps", "ConfigMap", name)
        binary = {key: base64.b64decode(it) for key, it in (body.get("binaryData") or {}).items()}
        return {key: text.encode() for key, text in (body.get("data") or {}).items()} | binary

    async def login(self, host: str) -> Login | None:
        """Who the build is in the registry, or None."""
        return (await self.logins()).get(host_of(host))

    async def logins(self) -> Mapping[str, Login]:
        """All of them. The first for a registry counts: the spec's, then the account's."""
        found: dict[str, Login] = {}
        for name in await self._sources():
            found = {**await self._held(name), **found}
        self._remember(*(login.password for login in found.values()))
        return found

    def masks(self) -> frozenset[str]:
        """The values that were read so far, to be kept out of everything that is shown."""
        return frozenset(self._masks)

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed`, once, when something is not any more as it was read last."""
        return self._lookout.watch(self._seen, changed)

    async def _sources(self) -> tuple[str, ...]:
        if not self._account:
            return self._logins
        body = await self._read("serviceaccounts", "ServiceAccount", self._account)
        pull = [ref.get("name", "") for ref in body.get("imagePullSecrets") or []]
        return (*self._logins, *filter(None, pull))

    async def _held(self, name: str) -> dict[str, Login]:
        try:
            return logins_of(await self.secret(name))
        except InvalidConfig as error:
            raise Rejected(
                f"The Secret {name} holds no registry logins: {error}.", Reason.INVALID_CREDENTIALS
            ) from error

    async def _read(self, plural: str, kind: str, name: str) -> dict[str, Any]:
        path = f"/api/v1/namespaces/{self._namespace}/{plural}/{name}"
        if path in self._bodies:
            return self._bodies[path]
        try:
            body = await self._client.get(path)
        except Gone as error:
            self._seen[path] = ""
            raise Missing(
                f"The {kind} {name} is not in namespace {self._namespace} yet: create it, and "
                "the build goes on by itself."
            ) from error
        self._seen[path] = body["metadata"]["resourceVersion"]
        # Two may have asked at once: both get what came first.
        return self._bodies.setdefault(path, body)

    def _remember(self, *values: str) -> None:
        for value in values:
            lines = (value, *value.splitlines())
            self._masks.update(part for part in lines if len(part.strip()) >= SHORTEST_MASK)
