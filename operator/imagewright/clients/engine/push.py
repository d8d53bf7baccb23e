"""What the stream of a push comes to."""

import re
from collections.abc import AsyncIterator

from imagewright.clients.engine.errors import NoResult
from imagewright.clients.engine.stream import Aux, Message, Status

Digest = str
"""Of the manifest or index, as the registry has it: `sha256:` and 64 hex digits."""

_DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]{32,}")
_LINE = re.compile(r"(\S+): digest: ([a-z0-9]+:[0-9a-f]{32,})(?: size: \d+)?\s*")


async def digest_of(stream: AsyncIterator[Message], tag: str) -> Digest:
    """The digest under which the registry has `tag` now.

    With a graph driver the engine tells it as a fact and in a line; with a containerd store in
    the line only, and its facts are notices. Raises what the stream raises, and NoResult where
    it ends without a digest.
    """
    digest = ""
    async for message in stream:
        digest = told(message, tag) or digest
    if not digest:
        raise NoResult(f"The engine ended the push of {tag} without a digest.")
    return digest


def told(message: Message, tag: str) -> Digest:
    """The digest of `tag` that a message tells, or nothing."""
    if isinstance(message, Aux):
        digest = str(message.value.get("Digest", ""))
        return digest if message.value.get("Tag") == tag and _DIGEST.fullmatch(digest) else ""
    if isinstance(message, Status) and (found := _LINE.fullmatch(message.text)):
        return found[2] if found[1] == tag else ""
    return ""
