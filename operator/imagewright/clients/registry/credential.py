"""Who we are in a registry, and whom to ask for it."""

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Credential:
    """A name and its secret in one registry. An empty name makes the secret an identity token."""

    username: str
    secret: str = field(repr=False)


class Credentials(Protocol):
    """Knows who we are in a registry, named by its host (and port) as the daemon dials it.

    It is asked anew for every question of the daemon, so a credential may change at any time. What
    people write for a host is its business: Docker Hub, say, is dialled as
    `registry-1.docker.io`, while they log in to `https://index.docker.io/v1/`.
    """

    async def __call__(self, host: str) -> Credential | None:
        """What to show that registry, or None to come as nobody.

        If it raises, the daemon is told that it did, and nothing of the error but its kind; a
        CallFailed is passed on as it is.
        """
        ...


async def anonymous(host: str) -> Credential | None:  # noqa: ARG001  # nobody, anywhere
    """Nobody, everywhere."""
    return None
