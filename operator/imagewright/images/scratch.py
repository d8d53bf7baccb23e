"""Room on a disk for layers while they are merged."""

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import IO


class Scratch:
    """Files without a name, which go when they are closed; `stop` ends who works with them."""

    def __init__(self, folder: Path) -> None:
        self.stop = threading.Event()
        self._folder, self._files = folder, list[IO[bytes]]()

    async def file(self) -> IO[bytes]:
        """A new one. Raises OSError."""
        return await asyncio.to_thread(self._open)

    async def drop(self, file: IO[bytes]) -> None:
        """Give one of them back."""
        await asyncio.to_thread(file.close)

    def _open(self) -> IO[bytes]:
        made = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  # `close` does
        self._files.append(made)
        return made

    def close(self) -> None:
        """Give all of them back. Blocks."""
        for file in self._files:
            file.close()
