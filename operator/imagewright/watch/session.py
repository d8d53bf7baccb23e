"""The session that kopf asks with: who we are, and lists without what is over.

A cluster keeps thousands of builds that are over. kopf makes a task, a queue and some views for
each one that it lists, and remembers it for as long as it lives; our store forgets it at once. So
these are dropped where a list is parsed.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import kopf
import orjson

from imagewright.kube.access import Access
from imagewright.ports import Body

LOGIN_LIFE = timedelta(minutes=10)
"""kopf asks for another session after that: well within the life of a Pod's token."""
Idle = Callable[[Body], bool]


async def session(access: Access, idle: Mapping[str, Idle]) -> kopf.AiohttpSession:
    """A session in kopf's words, for the loop that it is made in; kopf closes it.

    `idle` says for each kind, by plural, which bodies need not be told in a list.
    """
    tls = await asyncio.to_thread(access.tls)
    own = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls, limit=0),
        headers={
            "Authorization": await access.authorization(),
            "User-Agent": "imagewright",
            # Packing a list of thousands costs the API server more than sending it.
            "Accept-Encoding": "identity",
        },
        response_class=response_class(idle),
    )
    until = datetime.now(UTC) + LOGIN_LIFE
    return kopf.AiohttpSession(server=access.server, aiohttp_session=own, expiration=until)


def response_class(idle: Mapping[str, Idle]) -> type[aiohttp.ClientResponse]:
    """Responses that leave the idle out of lists; what a watch streams is left as it is."""

    class Response(aiohttp.ClientResponse):
        async def json(self, **_: Any) -> Any:
            content = orjson.loads(await self.read())
            left_out = idle.get(self.url.name)
            if left_out is not None and "items" in content:
                content["items"] = [one for one in content["items"] if not left_out(one)]
            return content

    return Response
