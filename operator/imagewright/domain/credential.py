"""Who we are in a registry."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Login:
    """A name and its password in one registry; with an empty name it is an identity token."""

    username: str
    password: str = field(repr=False)
