"""What an engine's answer can mean, and the one translation from HTTP and sockets.

```
EngineError
├── Unreachable      nobody answered, or the wire broke: the same call may pass later
│   └── TlsFailed    one side did not accept the other's certificate
├── Refused          the engine answered with an HTTP error: nothing was built
├── StreamError      the engine said so in a stream that had begun well
├── NoResult         a stream ended with neither an error nor a result
└── Unsupported      this engine would refuse the request, or misread it
```

Texts are the engine's own where it gave one. A status says little: a fault of the user is very
often a 500 (moby's httpstatus: an error without a class is one).
"""

import json
import os
import ssl
from http import HTTPStatus

from aiohttp import ClientConnectorError, ClientError, ClientSSLError

TLS_WANTED = "HTTP request to an HTTPS server"
"""What a server written in Go answers to plain text on a port with TLS."""


class EngineError(Exception):
    """Anything that went wrong between us and an engine. Its text is one for people."""


class Unreachable(EngineError):
    """Nobody answered, or the wire broke."""


class TlsFailed(Unreachable):
    """One side did not accept the other's certificate, or one of them spoke plain text."""


class Refused(EngineError):
    """The engine's answer is an HTTP error, `status`. No output came before it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class StreamError(EngineError):
    """The engine failed after its output had begun.

    `code` is the exit code of a failed step; only the classic builder tells it.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class NoResult(EngineError):
    """The stream ended well, and holds no result: whether there is one, nobody knows."""


class Unsupported(EngineError):
    """The engine would refuse the request, or silently misread a part of it."""


def translate(error: Exception) -> EngineError:
    """The meaning of what aiohttp, TLS or a socket raised; what is none of these comes out again.

    The text is made anew: aiohttp's own may hold the URL, and that holds the build arguments.
    """
    if isinstance(error, EngineError):
        return error
    if isinstance(error, TimeoutError):
        return Unreachable("the engine did not answer in time")
    if isinstance(error, ClientSSLError | ssl.SSLError):
        return TlsFailed(str(error))
    if isinstance(error, ClientConnectorError):
        return Unreachable(str(error))
    if isinstance(error, OSError):
        return _broken(error)
    if isinstance(error, ClientError | EOFError):
        return Unreachable("the engine closed the connection before it had answered")
    raise error


def _broken(error: OSError) -> Unreachable:
    # TLS 1.3 learns only with the first answer that its certificate was not accepted.
    if "[SSL" in (text := str(error.strerror or error)):
        return TlsFailed(text)
    reason = os.strerror(error.errno) if error.errno else "the connection was closed"
    return Unreachable(f"the connection broke: {reason}")


def refusal(status: int, body: bytes) -> EngineError:
    """The meaning of an HTTP error: its body is `{"message": …}`, or plain text."""
    text = body.decode(errors="replace").strip()
    try:
        text = str(json.loads(text)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        if TLS_WANTED in text:
            return TlsFailed("the engine wants TLS, and was spoken to in plain text")
    return Refused(text or _phrase(status), status)


def _phrase(status: int) -> str:
    known = status in HTTPStatus.__members__.values()
    return f"{status} {HTTPStatus(status).phrase}" if known else f"status {status}"
