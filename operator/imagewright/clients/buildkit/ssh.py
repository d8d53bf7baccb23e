"""SSH keys that a daemon's steps and git fetches may sign with: `RUN --mount=type=ssh`.

The daemon puts a socket into the step, and what is said there comes to us in BytesMessages
(BuildKit's session/sshforward). The key itself never leaves this process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from google.protobuf.message import DecodeError

from imagewright.clients.buildkit.agent import Agent, KeyRefused, load_agent
from imagewright.clients.buildkit.calls import CallFailed, Code, Handler, Stream, unary
from imagewright.clients.buildkit.proto.ssh_pb2 import CheckAgentRequest
from imagewright.clients.buildkit.secrets import looked_up
from imagewright.clients.buildkit.wire import WireError, bytes_message, parse_bytes_message

SSH = "/moby.sshforward.v1.SSH/"
ID = "buildkit.ssh.id"
DEFAULT = "default"
MAX_REQUEST = 256 << 10
"""Bytes. What OpenSSH's own agent takes."""


class Agents:
    """The session's SSH service: an agent for every key that `lookup` finds by its id.

    A key is the text of a private key file, without a passphrase; None is one that is not known.
    It is looked up anew for each connection. Agents show their key and sign with it; all else
    that agents can do, such as taking more keys, is refused.
    """

    def __init__(self, lookup: Callable[[str], Awaitable[bytes | None]]) -> None:
        self._lookup = lookup

    def handlers(self) -> Mapping[str, Handler]:
        """The served methods."""
        return {SSH + "CheckAgent": unary(self._check), SSH + "ForwardAgent": self._forward}

    async def _check(self, message: bytes) -> bytes:
        try:
            name = CheckAgentRequest.FromString(message).ID
        except DecodeError as error:
            raise CallFailed(Code.INVALID_ARGUMENT, "That is no CheckAgentRequest.") from error
        await self._agent(name or DEFAULT)
        return b""

    async def _forward(self, stream: Stream) -> None:
        name = next(iter(stream.metadata.get(ID, ())), "") or DEFAULT
        agent = await self._agent(name)
        waiting = bytearray()
        while (message := await stream.read()) is not None:
            try:
                waiting += parse_bytes_message(message)
            except WireError as error:
                raise CallFailed(Code.INVALID_ARGUMENT, str(error)) from error
            while (request := _next(waiting)) is not None:
                answer = await asyncio.to_thread(agent.answer, request)
                await stream.write(bytes_message(len(answer).to_bytes(4, "big") + answer))

    async def _agent(self, name: str) -> Agent:
        pem = await looked_up(self._lookup, name, "SSH key")
        try:
            return await asyncio.to_thread(load_agent, pem, name)
        except KeyRefused as error:
            text = f"The SSH key {name} cannot be used. {error}"
            raise CallFailed(Code.INVALID_ARGUMENT, text) from error


def _next(waiting: bytearray) -> bytes | None:
    """Take the first whole request away, without its length."""
    if len(waiting) < 4:
        return None
    size = int.from_bytes(waiting[:4], "big")
    if size > MAX_REQUEST:
        raise CallFailed(Code.INVALID_ARGUMENT, "A request to the SSH agent is too long.")
    if len(waiting) < 4 + size:
        return None
    request = bytes(waiting[4 : 4 + size])
    del waiting[: 4 + size]
    return request
