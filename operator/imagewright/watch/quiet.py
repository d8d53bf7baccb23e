"""kopf's settings: it writes nothing, keeps next to nothing, and notices a dead connection."""

import logging
from typing import Any

import kopf

from imagewright.api.imagebuild import GROUP

CHUNK = 100
"""Objects in a page of a list: as many bodies are in memory at once."""
IDLE_SECONDS = 0.1
"""For so long after an event an object has a task, a queue and its body in memory."""


def watch_settings() -> kopf.OperatorSettings:
    """Settings that make kopf write nothing, notice a dead connection, and come back soon."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 3
    # A second is the longest that nobody looks whether an outage is over.
    settings.networking.error_backoffs = (0.2, 0.5, *[1] * 20)
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 3
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = CHUNK
    settings.queueing.idle_timeout = IDLE_SECONDS
    settings.persistence.finalizer = f"{GROUP}/kopf"
    settings.persistence.diffbase_storage = NoDiffs()
    settings.persistence.progress_storage = NoProgress()
    # It says "succeeded" for every event at INFO.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    # And of an outage each try, and each of its tasks that ended by it; we say it once a minute.
    for name in ("kopf._cogs", "kopf._core.reactor"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return settings


class NoDiffs(kopf.DiffBaseStorage):
    """Compares nothing: kopf's own copies every body in full, at every event."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Nothing of the body."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        """Nothing was handled before."""

    def store(self, **_: Any) -> None:
        """Write nothing."""


class NoProgress(kopf.ProgressStorage):
    """Remembers nothing: an `on.event` handler has no progress."""

    def fetch(self, **_: Any) -> None:
        """Nothing was begun."""

    def store(self, **_: Any) -> None:
        """Write nothing."""

    def purge(self, **_: Any) -> None:
        """Nothing is there."""

    def touch(self, **_: Any) -> None:
        """Write nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """There is nothing of ours in it."""
        return essence
