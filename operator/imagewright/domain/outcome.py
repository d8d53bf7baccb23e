"""How an attempt ended: the image, or what broke."""

from dataclasses import dataclass

from imagewright.api.reason import Reason


@dataclass(frozen=True, slots=True)
class Pushed:
    """A name that the registry now holds."""

    name: str
    tag: str
    digest: str
    reference: str


@dataclass(frozen=True, slots=True)
class Built:
    """An attempt that ended well. Without an output there is no digest and no id."""

    image_digest: str = ""
    image_id: str = ""
    pushed: tuple[Pushed, ...] = ()
    cached_steps: int = 0
    total_steps: int = 0


@dataclass(frozen=True, slots=True)
class Broken:
    """An attempt that did not. `retryable`: the same call may pass later."""

    reason: Reason
    message: str
    step: str = ""
    line: int | None = None
    exit_code: int | None = None
    retryable: bool = False
    log_tail: str = ""


Outcome = Built | Broken
