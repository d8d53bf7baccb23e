"""What a Secret opens a source with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from imagewright.api.reason import Reason
from imagewright.ports import Keyring, Rejected

TOKEN, USERNAME, PASSWORD = "token", "username", "password"  # keys of a Secret
SSH_KEY, KNOWN_HOSTS = "ssh-privatekey", "known_hosts"
ANYBODY = "x-access-token"
"""The user of a token without one: git hosts look at the token alone."""


@dataclass(frozen=True, slots=True)
class Opener:
    """A username and password, a bare token, or a private key for ssh."""

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    key: bytes = field(default=b"", repr=False)
    known_hosts: bytes = field(default=b"", repr=False)


async def opener(name: str, where: str, keyring: Keyring) -> Opener | None:
    """What the Secret `name` holds, as `where` (a field of the spec) names it; None without one.

    Raises Missing, Unavailable; Rejected (InvalidCredentials) where it holds nothing of use.
    """
    if not name:
        return None
    held = await keyring.secret(name)
    if SSH_KEY in held:
        return Opener(key=held[SSH_KEY], known_hosts=held.get(KNOWN_HOSTS, b""))
    if TOKEN in held:
        username = _text(held, USERNAME, name) if USERNAME in held else ""
        return Opener(username=username, token=_text(held, TOKEN, name))
    if PASSWORD in held:
        username = _text(held, USERNAME, name) if USERNAME in held else ""
        return Opener(username=username, password=_text(held, PASSWORD, name))
    raise Rejected(
        f"The Secret {name} of {where}.secretRef opens nothing: give it username and password, "
        "token, or ssh-privatekey.",
        Reason.INVALID_CREDENTIALS,
    )


def _text(held: Mapping[str, bytes], key: str, name: str) -> str:
    """One line: a line break would end the header, or the answer to git, that it becomes."""
    try:
        text = held[key].decode().removesuffix("\n")
    except UnicodeDecodeError:
        text = "\0"
    if any(ord(letter) < ord(" ") for letter in text):
        raise Rejected(
            f"The entry {key} of the Secret {name} is not one line of text.",
            Reason.INVALID_CREDENTIALS,
        )
    return text
