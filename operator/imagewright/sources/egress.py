"""Where the operator may be sent to fetch something: the check stands at the connection itself.

A name is looked up once more between a check and a connection, and a redirect names a new one. So
what is checked is the address that is about to be connected to, whoever named it.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from imagewright.api.reason import Reason
from imagewright.ports import Rejected, Unavailable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
LINK_LOCAL = (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10"))
"""Where clouds keep the metadata, and so the credentials, of the machine."""
METADATA = (
    ipaddress.ip_network("fd00:ec2::254/128"),
    ipaddress.ip_network("100.100.100.200/32"),
    ipaddress.ip_network("168.63.129.16/32"),
    ipaddress.ip_network("fd20:ce::254/128"),
)
"""The metadata services of clouds that have them elsewhere."""
NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data", "metadata.goog"})
_ODD = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)(?:\.(?:0[xX][0-9a-fA-F]*|[0-9]+)){0,3}\.?")
"""What inet_aton(3) takes for an address: decimal, octal and hex in one to four parts."""
NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Egress:
    """Addresses that no source may be fetched from. Private networks are not among them."""

    allow_loopback: bool = False
    denied: tuple[Network, ...] = LINK_LOCAL + METADATA

    def check_host(self, host: str) -> None:
        """Refuse a name by itself. Raises Rejected (SourceUnavailable)."""
        plain = host.rstrip(".").lower()
        if plain in NAMES or (_ODD.fullmatch(host) and not _literal(host)):
            raise _refusal(host)

    def check_address(self, host: str, text: str) -> None:
        """Refuse the address that `host` stands for. Raises Rejected (SourceUnavailable)."""
        for address in _meanings(ipaddress.ip_address(text.partition("%")[0])):
            inside = address.is_loopback or address.is_unspecified
            if inside and not self.allow_loopback:
                raise _refusal(host)
            if address.is_multicast or any(address in network for network in self.denied):
                raise _refusal(host)

    async def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """What the host stands for now, every one of them allowed.

        Raises Rejected where one is not, Unavailable where the name is not known.
        """
        self.check_host(host)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            raise Unavailable(
                f"The source's host {host} is not known: {error}.", Reason.SOURCE_UNAVAILABLE
            ) from error
        texts = tuple(dict.fromkeys(str(one[4][0]) for one in found))
        for text in texts:
            self.check_address(host, text)
        return texts

    def open_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """The socket for a connection of aiohttp's, which names the address. Raises Rejected."""
        family, kind, protocol, _, address = info
        self.check_address(str(address[0]), str(address[0]))
        return socket.socket(family=family, type=kind, proto=protocol)


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _meanings(address: Address) -> Iterable[Address]:
    """The address, and the IPv4 address that an IPv6 one carries."""
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            yield address.ipv4_mapped
        if address.sixtofour:
            yield address.sixtofour
        if address in NAT64:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _refusal(host: str) -> Rejected:
    return Rejected(
        f"The source leads to {host}, where sources may not be fetched from: name a server "
        "outside of this machine and of its metadata service.",
        Reason.SOURCE_UNAVAILABLE,
    )
