"""Whose credentials count where there is no cluster: those of the person at the terminal."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from imagewright.api.reason import Reason
from imagewright.domain.credential import Login
from imagewright.domain.dockerconfig import JSON, InvalidConfig, host_of, logins_of
from imagewright.ports import Rejected


class LocalKeyring:
    """Registry logins from Docker's config.json; no Secret and no ConfigMap is ever there."""

    def __init__(self, folder: str = "") -> None:
        own = folder or os.environ.get("DOCKER_CONFIG")
        self._file = (Path(own) if own else Path.home() / ".docker") / "config.json"

    @property
    def there(self) -> bool:
        """Whether there is a file to read logins from."""
        return self._file.is_file()

    async def secret(self, name: str) -> Mapping[str, bytes]:
        """Refused: a Secret is in a cluster."""
        raise Rejected(_absent("Secret", name), Reason.SECRET_NOT_FOUND)

    async def config(self, name: str) -> Mapping[str, bytes]:
        """Refused, as well."""
        raise Rejected(_absent("ConfigMap", name), Reason.SECRET_NOT_FOUND)

    async def login(self, host: str) -> Login | None:
        """Who `docker login` made the person in that registry."""
        return (await self.logins()).get(host_of(host))

    async def logins(self) -> Mapping[str, Login]:
        """All that config.json itself holds; what a credential helper holds is not asked for."""
        try:
            content = await asyncio.to_thread(self._file.read_bytes)
        except OSError:
            return {}
        try:
            return logins_of({JSON: content})
        except InvalidConfig as error:
            raise Rejected(
                f"{self._file} holds no registry logins: {error}.", Reason.INVALID_CREDENTIALS
            ) from error

    def masks(self) -> frozenset[str]:
        """Nothing: what is printed is seen by its owner only."""
        return frozenset()


def _absent(kind: str, name: str) -> str:
    return (
        f"The {kind} {name} is in a cluster, and imagewright build uses none: build it there, or "
        "leave out what names it."
    )
