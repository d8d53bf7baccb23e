"""etcd, past the API server: thousands of objects are there, or gone, within a second.

By its JSON gateway, in which keys and values are base64 (etcd's docs, dev-guide/api_grpc_gateway).
"""

import base64
from collections.abc import Mapping
from typing import Any

import aiohttp

AT_ONCE = 100
"""Keys of a transaction; etcd takes 128."""


class Etcd:
    """The etcd at a URL; `session` is the caller's."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def value(self, key: str) -> bytes:
        """What is kept there. Raises LookupError where nothing is."""
        found = (await self._ask("range", {"key": _text(key.encode())})).get("kvs")
        if not found:
            raise LookupError(f"etcd has no {key}.")
        return base64.b64decode(found[0]["value"])

    async def put(self, values: Mapping[str, bytes]) -> None:
        """Keep all of these, by key."""
        puts = [
            {"requestPut": {"key": _text(key.encode()), "value": _text(value)}}
            for key, value in values.items()
        ]
        for first in range(0, len(puts), AT_ONCE):
            await self._ask("txn", {"success": puts[first : first + AT_ONCE]})

    async def delete(self, prefix: str) -> None:
        """Keep nothing whose key begins so; an ASCII text."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        await self._ask(
            "deleterange", {"key": _text(prefix.encode()), "range_end": _text(end.encode())}
        )

    async def _ask(self, what: str, body: Mapping[str, Any]) -> dict[str, Any]:
        async with self._session.post(f"{self._url}/v3/kv/{what}", json=body) as answer:
            answer.raise_for_status()
            found: dict[str, Any] = await answer.json()
        return found


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
