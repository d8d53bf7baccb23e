"""What the kernel says of processes: CPU, memory, and whether one is there."""

import asyncio
import os
import time
from pathlib import Path

PROC = Path("/proc")


def cpu_seconds(pid: int) -> float:
    """CPU that all threads of a process have used, to the nanosecond (schedstat)."""
    total = 0
    for task in (PROC / str(pid) / "task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:  # The thread ended meanwhile.
            continue
    return total / 1e9


def rss_mb(pid: int) -> float:
    """Resident memory, in MB (10^6 bytes)."""
    pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb(pid: int) -> float:
    """The most resident memory that the process ever had, in MB (10^6 bytes)."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))


def find(argument: str) -> int | None:
    """The pid of the process that was started with exactly this argument."""
    for name in os.listdir(PROC):  # noqa: PTH208  # a scandir that is left early stays open
        try:
            arguments = (PROC / name / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if argument.encode() in arguments and arguments[0].endswith(b"sleep"):
            return int(name)
    return None


async def appeared(argument: str, seconds: float = 30) -> int:
    """The pid of that process once it is there. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            pid = find(argument)
            if pid is not None:
                return pid
            await asyncio.sleep(0.005)


async def vanished(pid: int, seconds: float = 30) -> float:
    """The moment (monotonic) at which the process was gone. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while alive(pid):
            await asyncio.sleep(0.0005)
    return time.monotonic()


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        state = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
