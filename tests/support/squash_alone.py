"""One squash in a process of its own, which says how much memory it took at most.

python -m tests.support.squash_alone REPOSITORY DIGEST FOLDER BASE...
"""

import asyncio
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from imagewright.clients.registry.access import Access
from imagewright.clients.registry.credential import anonymous
from imagewright.clients.registry.tokens import TokenClient
from imagewright.domain.outcome import Built
from imagewright.images.registry import RegistryStore
from tests.support.parts import FakeKeyring


def now() -> datetime:
    """The time."""
    return datetime.now(UTC)


async def main() -> None:
    """Squash, and print what came of it as JSON."""
    repository, digest, folder, *base = sys.argv[1:]
    store = RegistryStore(lambda _: Access(anonymous, TokenClient()), Path(folder), now)
    before = peak_kib()
    source = Built(digest, "", repository=repository, base=tuple(base))
    built = await store.squash(source, FakeKeyring())
    said = {"digest": built.image_digest, "before_kib": before, "peak_kib": peak_kib()}
    sys.stdout.write(json.dumps(said) + "\n")


def peak_kib() -> int:
    """The most memory that it had at a time; ru_maxrss counts that of who started it, too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


if __name__ == "__main__":
    asyncio.run(main())
