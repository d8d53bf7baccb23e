"""Who we are to an API server, and until when that is so."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from imagewright.ports import Unavailable

TOKEN_SECONDS = 60.0
"""For so long a token that was read is used before its file is read again.

A service account's token is renewed on disk well before its hour is over.
"""


class NoAccess(Unavailable):
    """Nothing says how to reach a cluster, or as whom; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The Authorization header, or a certificate and its key as PEM; what is not used is empty."""

    header: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    until: float = math.inf
    """On the monotonic clock: from then on it must be asked for anew."""


def from_token_file(path: Path) -> Identity:
    """The bearer of the token in this file. Raises NoAccess; blocks."""
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise NoAccess(f"The token in {path} cannot be read: {error}.") from error
    return Identity(header=f"Bearer {token}", until=time.monotonic() + TOKEN_SECONDS)
