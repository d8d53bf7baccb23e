"""How an attempt ended: the image, or what broke."""

from dataclasses import dataclass

from imagewright.api.reason import Reason


@dataclass(frozen=True, slots=True)
class Pushed:
    """A name that the registry now holds; `overtaken`: another push has taken it since."""

    name: str
    tag: str
    digest: str
    reference: str
    overtaken: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """An attempt that ended well. Without an output there is no digest and no id.

    `image_digest` is that of the manifest or index, empty where nothing was pushed yet; `image_id`
    that of the configuration, or an engine's own id. `repository` is where the image lies so far
    without a name of its own; `base` are the uncompressed digests of its base's layers, from the
    lowest, where squashing must know them.
    """

    image_digest: str = ""
    image_id: str = ""
    pushed: tuple[Pushed, ...] = ()
    cached_steps: int = 0
    total_steps: int = 0
    repository: str = ""
    base: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Broken:
    """An attempt that did not. `retryable`: the same call may pass later.

    `built` is what there is all the same: an image that could not be given all of its names.
    """

    reason: Reason
    message: str
    step: str = ""
    line: int | None = None
    exit_code: int | None = None
    retryable: bool = False
    log_tail: str = ""
    built: Built | None = None


Outcome = Built | Broken
