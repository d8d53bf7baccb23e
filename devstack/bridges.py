"""Network bridges: each Docker Engine has its own, so that several do not fight over docker0.

A bridge is named by a digest over its stack's folder, so it is found again without any record of
it, also after a kill. Needs root and Debian's iproute2.
"""

import hashlib
import ipaddress
import json
from pathlib import Path

from devstack.binaries import CACHE, locked
from devstack.debian import program
from devstack.identity import run

INTERFACES = Path("/sys/class/net")
RANGE = ipaddress.ip_network("198.18.0.0/15")
"""Kept for measurements between machines (RFC 2544): no network that a machine is in has these."""
PREFIX = 24


def bridge_of(folder: Path, kind: str) -> str:
    """The name of the bridge; an interface's may have 15 characters."""
    return "iw" + hashlib.sha256(f"{folder}/{kind}".encode()).hexdigest()[:10]


def add_bridge(name: str) -> None:
    """A bridge with a network that is free. Raises RuntimeError where the machine refuses."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE / "bridges.lock"):
        # One that is there already may be half made, by a process that was killed.
        remove_bridge(name)
        taken = _taken()
        free = next(one for one in RANGE.subnets(new_prefix=PREFIX) if one not in taken)
        _ip("link", "add", name, "type", "bridge")
        _ip("address", "add", f"{free[1]}/{PREFIX}", "dev", name)
        _ip("link", "set", name, "up")


def remove_bridge(name: str) -> None:
    """Remove the bridge, if there is one."""
    if (INTERFACES / name).exists():
        _ip("link", "delete", name)


def _taken() -> set[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    addresses = [
        one["local"]
        for interface in json.loads(_ip("-json", "address", "show"))
        for one in interface["addr_info"]
        if one["family"] == "inet"
    ]
    return {ipaddress.ip_network(f"{one}/{PREFIX}", strict=False) for one in addresses}


def _ip(*arguments: str) -> str:
    found = program("ip")
    if found is None:
        raise RuntimeError("ip is missing: install Debian's iproute2.")
    return run([str(found), *arguments])
