"""A gRPC server on a pipe of bytes: the far end is a BuildKit daemon, and so grpc-go's client.

BuildKit's session turns the roles round: the daemon opens streams on a connection that lives
inside a call of ours. Only the part of HTTP/2 (RFC 9113) is here that gRPC uses. Many messages
share a write and a frame: a context of many files is mostly messages of a few bytes.
"""

import asyncio
from collections.abc import Callable, Mapping

from imagewright.clients.buildkit.calls import CallFailed, Code, Handler, Stream, failure_of
from imagewright.clients.buildkit.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    LARGEST_WINDOW,
    MAX_HEADERS,
    ErrorCode,
    Frame,
    FrameReader,
    HeaderReader,
    Kind,
    ProtocolError,
    Setting,
    content,
    frame,
    goaway,
    parse_settings,
    reset,
    settings,
    window_update,
)
from imagewright.clients.buildkit.streams import BACKLOG, WINDOW, Call, Outgoing, widened

CONNECTION_WINDOW = 4 << 20
"""Bytes of all streams together that may be on their way to us."""
MAX_STREAMS = 128
FLOOD = 2 * BACKLOG
"""Only a peer that asks for answers and does not take them can fill the backlog beyond this."""


class Connection:
    """The server: `feed()` takes the peer's bytes, `outgoing()` gives ours.

    Handlers run as tasks of the loop that feeds; `close()` ends them.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._streams: dict[int, Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._frames, self._headers = FrameReader(), HeaderReader()
        self._block: tuple[Frame, bytearray] | None = None
        self._greeted = False
        self._failure: ProtocolError | None = None
        self._last = 0
        self._credit = CONNECTION_WINDOW
        self._stream_window = FIRST_WINDOW
        self._out = Outgoing()
        self._accept: dict[int, Callable[[Frame], None]] = {
            Kind.DATA: self._data,
            Kind.HEADERS: self._open_block,
            Kind.CONTINUATION: self._continue_block,
            Kind.RST_STREAM: self._reset,
            Kind.SETTINGS: self._settings,
            Kind.PING: self._ping,
            Kind.WINDOW_UPDATE: self._window_update,
        }
        values = {
            Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            Setting.INITIAL_WINDOW_SIZE: WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: MAX_HEADERS,
        }
        self._out.send(settings(values), window_update(0, CONNECTION_WINDOW - FIRST_WINDOW))

    def feed(self, received: bytes) -> None:
        """Take bytes of the peer, in pieces of any size.

        Raises ProtocolError when the peer breaks the protocol, and again at every later call.
        """
        if self._failure:
            raise self._failure
        try:
            for found in self._frames.feed(received):
                self._dispatch(found)
        except ProtocolError as error:
            self._failure = error
            self._out.send(goaway(self._last, error))
            raise

    async def outgoing(self) -> bytes:
        """Our next bytes, about a MiB at most; waits until there are some."""
        return await self._out.take()

    async def close(self) -> None:
        """Cancel the handlers and wait for their end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _dispatch(self, found: Frame) -> None:
        if not self._greeted and found.kind != Kind.SETTINGS:
            raise ProtocolError("The first frame is not SETTINGS.")
        if self._block and found.kind != Kind.CONTINUATION:
            raise ProtocolError("A frame came amidst a block of headers.")
        accept = self._accept.get(found.kind)
        if accept:
            accept(found)
        if self._out.backlog > FLOOD:
            raise ProtocolError("The peer does not read.", ErrorCode.ENHANCE_YOUR_CALM)

    def _data(self, found: Frame) -> None:
        self._credit -= len(found.payload)
        if self._credit < 0:
            raise ProtocolError("The connection's window is full.", ErrorCode.FLOW_CONTROL_ERROR)
        # What has come is given back at once, for one slow handler must not stop the others:
        # each stream's own window bounds what can pile up.
        if self._credit < CONNECTION_WINDOW // 2:
            self._out.send(window_update(0, CONNECTION_WINDOW - self._credit))
            self._credit = CONNECTION_WINDOW
        data = content(found)
        if stream := self._known(found.stream):
            stream.receive(data, padding=len(found.payload) - len(data))
            if found.flags & END_STREAM:
                stream.end()

    def _open_block(self, found: Frame) -> None:
        self._block = (found, bytearray(content(found)))
        self._close_block(found)

    def _continue_block(self, found: Frame) -> None:
        if self._block is None or self._block[0].stream != found.stream:
            raise ProtocolError("A CONTINUATION came without its HEADERS.")
        self._block[1].extend(found.payload)
        if len(self._block[1]) > MAX_HEADERS:
            raise ProtocolError("The headers are too long.", ErrorCode.ENHANCE_YOUR_CALM)
        self._close_block(found)

    def _close_block(self, last: Frame) -> None:
        if self._block is None or not last.flags & END_HEADERS:
            return
        (first, block), self._block = self._block, None
        headers = self._headers.read(bytes(block))
        ended = bool(first.flags & END_STREAM)
        if first.stream > self._last:
            self._open(first.stream, headers, ended=ended)
        elif not ended:
            raise ProtocolError("Headers came in the middle of a stream.")
        elif stream := self._streams.get(first.stream):
            stream.end()

    def _open(self, number: int, headers: dict[str, list[str]], *, ended: bool) -> None:
        if not number % 2:
            raise ProtocolError("A client's streams have odd numbers.")
        self._last = number
        if len(self._streams) >= MAX_STREAMS:
            self._out.send(reset(number, ErrorCode.REFUSED_STREAM))
            return
        path = "".join(headers.pop(":path", ()))
        stream = self._streams[number] = Call(self._out, number, headers, self._stream_window)
        if ended:
            stream.end()
        call = self._call(stream, self._handlers.get(path) or _unknown(path))
        stream.task = asyncio.create_task(call, name=f"session call {path}")
        self._tasks.add(stream.task)
        stream.task.add_done_callback(self._tasks.discard)

    async def _call(self, stream: Call, handler: Handler) -> None:
        try:
            await handler(stream)
            stream.close(CallFailed(Code.OK, ""))
        except asyncio.CancelledError:
            if stream.number in self._streams:
                self._out.send(reset(stream.number, ErrorCode.CANCEL))
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it is an answer
            stream.close(failure_of(error))
        finally:
            self._streams.pop(stream.number, None)

    def _known(self, number: int) -> Call | None:
        """An open stream, None for one that is over; ProtocolError where there never was one."""
        if number > self._last:
            raise ProtocolError("A frame came for a stream that was never opened.")
        return self._streams.get(number)

    def _reset(self, found: Frame) -> None:
        if stream := self._known(found.stream):
            del self._streams[found.stream]
            if stream.task:
                stream.task.cancel()

    def _settings(self, found: Frame) -> None:
        if found.flags & ACK:
            if found.payload or not self._greeted:
                raise ProtocolError("An ACK says more than that.", ErrorCode.FRAME_SIZE_ERROR)
            return
        self._greeted = True
        for key, value in parse_settings(found.payload):
            if key == Setting.INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window = widened(stream.window, value - self._stream_window)
                self._stream_window = value
            elif key == Setting.MAX_FRAME_SIZE:
                self._out.max_frame = value
        self._out.moved()
        self._out.send(frame(Kind.SETTINGS, ACK, 0))

    def _ping(self, found: Frame) -> None:
        # grpc-go measures the bandwidth with these, and widens its windows after prompt answers.
        if not found.flags & ACK:
            self._out.send(frame(Kind.PING, ACK, 0, found.payload))

    def _window_update(self, found: Frame) -> None:
        size = int.from_bytes(found.payload, "big") & LARGEST_WINDOW
        if not size:
            raise ProtocolError("A window was widened by nothing.")
        if not found.stream:
            self._out.window = widened(self._out.window, size)
        elif stream := self._known(found.stream):
            stream.window = widened(stream.window, size)
        self._out.moved()


def _unknown(path: str) -> Handler:
    async def handler(_: Stream) -> None:
        raise CallFailed(Code.UNIMPLEMENTED, f"This client does not serve {path}.")

    return handler
