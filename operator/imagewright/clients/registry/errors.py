"""What a registry's answer can mean.

```
RegistryError
├── Unreachable      nobody answered, the wire broke, or the registry is overrun: may pass later
│   └── TlsFailed    its certificate was not accepted
├── Unauthorized     it wants to know who we are, or does not let us do this
├── NotFound         it has no such repository, manifest or blob
├── Refused          any other answer that is an error
└── Corrupt          what it sent is not what its digest says
```
"""

import json
import ssl
from http import HTTPStatus

import aiohttp

SHOWN = 512
"""Characters of a registry's own words."""
LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


class RegistryError(Exception):
    """Anything that went wrong between us and a registry. Its text is one for people."""


class Unreachable(RegistryError):
    """Nobody answered, the wire broke, or the registry asks for another time."""


class TlsFailed(Unreachable):
    """The registry's certificate was not accepted."""


class Unauthorized(RegistryError):
    """The registry does not let us do this."""


class NotFound(RegistryError):
    """It has no such thing."""


class Refused(RegistryError):
    """Any other error that it answered."""


class Corrupt(RegistryError):
    """What it sent is not what it should be."""


def translate(error: Exception, host: str) -> RegistryError:
    """The meaning of what aiohttp, TLS or a socket raised. No request is shown."""
    if isinstance(error, RegistryError):
        return error
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return TlsFailed(f"the certificate of {host} is not accepted: {error}")
    if isinstance(error, TimeoutError):
        return Unreachable(f"{host} did not answer in time")
    if isinstance(error, aiohttp.ClientError | OSError):
        return Unreachable(f"{host} cannot be reached: {type(error).__name__} {error}")
    raise error


def refusal(status: int, body: bytes, what: str) -> RegistryError:
    """The meaning of an error status; `what` is the request, such as `PUT /v2/a/manifests/1`."""
    text = f"{what} was answered with {status} {_words(body)}".rstrip()
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return Unauthorized(text)
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(text)
    if status in LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unreachable(text)
    return Refused(text)


def _words(body: bytes) -> str:
    """The registry's own words: the distribution API's `errors`, or plain text."""
    text = body.decode(errors="replace")
    try:
        found = [f"{one['code']}: {one.get('message', '')}" for one in json.loads(text)["errors"]]
    except (ValueError, KeyError, TypeError):
        return text[:SHOWN].strip()
    return "; ".join(found)[:SHOWN]
