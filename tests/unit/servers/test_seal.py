"""TLS in memory: what is written at one end is read at the other, and the end is not missed."""

import ssl
from pathlib import Path

import pytest

from devstack.certificates import Authority
from imagewright.servers.seal import Seal


@pytest.fixture
def ends(tmp_path: Path) -> tuple[Seal, Seal]:
    """A client and a server that have shaken hands."""
    authority = Authority(tmp_path / "own")
    own = authority.server()
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(own.cert, own.key)
    here = ssl.create_default_context(cafile=str(own.ca))
    client, server = Seal(here, name="localhost"), Seal(there, server_side=True)
    while not (client.shaken() & server.shaken()):
        carry(client, server)
        carry(server, client)
    carry(server, client)
    return client, server


def carry(one: Seal, other: Seal) -> None:
    """What one has to send reaches the other."""
    other.feed(memoryview(one.sealed()))


def test_what_is_written_is_read_whole_and_then_there_is_nothing(ends: tuple[Seal, Seal]) -> None:
    client, server = ends
    buffer = memoryview(bytearray(64 << 10))
    client.write(b"x" * 40_000)
    carry(client, server)
    assert server.read(buffer) == 40_000
    assert server.empty
    assert server.read(buffer) is None


def test_a_record_that_came_in_part_is_waited_for(ends: tuple[Seal, Seal]) -> None:
    client, server = ends
    buffer = memoryview(bytearray(1024))
    client.write(b"hello")
    sealed = client.sealed()
    server.feed(memoryview(sealed[:10]))
    assert server.read(buffer) is None
    server.feed(memoryview(sealed[10:]))
    assert server.read(buffer) == 5


def test_an_end_that_comes_with_the_last_bytes_is_told_after_them(ends: tuple[Seal, Seal]) -> None:
    client, server = ends
    buffer = memoryview(bytearray(1024))
    client.write(b"bye")
    client.end()
    carry(client, server)
    assert server.read(buffer) == 3
    assert not server.empty
    assert server.read(buffer) == 0
    assert server.read(buffer) == 0


def test_more_than_fits_is_handed_out_in_pieces(ends: tuple[Seal, Seal]) -> None:
    client, server = ends
    buffer = memoryview(bytearray(1000))
    client.write(b"y" * 2500)
    carry(client, server)
    assert [server.read(buffer) for _ in range(4)] == [1000, 1000, 500, None]
