"""The gateway with real sockets, real TLS and gRPC's own client and server at its two ends."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from devstack.certificates import Authority
from imagewright.servers import gateway as module
from imagewright.servers.gateway import EXHAUSTED, TurnedAway, caller_of
from imagewright.servers.http2 import NO_ERROR, frame_of, goaway, settings, settings_ack
from tests.support.gateway import GREETING, Doorman, House, a_house, client_tls, until
from tests.support.grpc_daemon import Daemon, serve_daemon

METHOD = "/moby.buildkit.v1.Control/Info"
FROM_CLIENT = GREETING[: -len(settings_ack())]


async def echo(request: bytes, _context: Any) -> bytes:
    """A daemon that answers with the digest of what it was sent."""
    return hashlib.sha256(request).digest()


async def call(channel: grpc.aio.Channel, request: bytes = b"x") -> bytes:
    """The answer. A call that somebody still knows would keep its connection open."""
    method: Any = channel.unary_unary(METHOD)
    answer: bytes = await method(request)
    return answer


class Wire:
    """A worker that says nothing by itself: what it hears, and its end of each connection."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.writers: list[asyncio.StreamWriter] = []
        self.ended = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until its peer is gone."""
        self.writers.append(writer)
        if task := asyncio.current_task():
            self.tasks.append(task)
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.heard += data
        writer.close()
        self.ended.set()


@asynccontextmanager
async def a_wire(path: Path) -> AsyncIterator[tuple[Wire, str]]:
    """Such a worker, and its address."""
    wire = Wire()
    server = await asyncio.start_unix_server(wire.attend, path)
    try:
        yield wire, f"unix://{path}"
    finally:
        server.close()
        for writer in wire.writers:
            writer.transport.abort()
        await asyncio.gather(*wire.tasks)


async def test_a_client_of_grpc_waits_is_served_and_gives_its_worker_back(tmp_path: Path) -> None:
    async with serve_daemon(tmp_path / "d.sock", Daemon({METHOD: echo})) as address:
        doorman = Doorman(address)
        doorman.open.clear()
        async with a_house(tmp_path, doorman.admit) as house:
            async with house.channel() as channel:
                asked = asyncio.create_task(call(channel))
                await until(lambda: house.connections("waiting") == 1)
                # Its connection is good: for gRPC, that takes the server's settings.
                await channel.channel_ready()
                assert doorman.order == ["team/dev waits"]
                doorman.open.set()
                assert await asked == hashlib.sha256(b"x").digest()
                assert await call(channel, b"y") == hashlib.sha256(b"y").digest()
                assert (house.connections("waiting"), house.connections("busy")) == (0, 1)
            await until(lambda: "given back" in doorman.order)
            assert doorman.order == ["team/dev waits", "leased", "given back"]
            assert house.connections("busy") == 0


async def test_megabytes_arrive_as_they_were_sent(tmp_path: Path) -> None:
    content = bytes(range(256)) * (3 << 12)
    async with (
        serve_daemon(tmp_path / "d.sock", Daemon({METHOD: echo})) as address,
        a_house(tmp_path, Doorman(address).admit) as house,
    ):
        async with house.channel() as channel:
            assert await call(channel, content) == hashlib.sha256(content).digest()
        await until(lambda: house.connections("busy") == 0)
        assert house.moved("up") > len(content)
        assert house.moved("down") > 0


async def test_a_worker_behind_tls_is_reached(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "workers")
    server, client = authority.server(), authority.client("gateway")
    daemon = grpc.aio.server()
    daemon.add_generic_rpc_handlers((Daemon({METHOD: echo}),))
    pair = (server.key.read_bytes(), server.cert.read_bytes())
    port = daemon.add_secure_port(
        "127.0.0.1:0",
        grpc.ssl_server_credentials([pair], server.ca.read_bytes(), require_client_auth=True),
    )
    await daemon.start()
    doorman = Doorman(f"tcp://127.0.0.1:{port}")
    doorman.upstream = {"tls": client_tls(client, client), "server_name": "localhost"}
    async with a_house(tmp_path, doorman.admit) as house, house.channel() as channel:
        assert await call(channel) == hashlib.sha256(b"x").digest()
    await daemon.stop(0)


async def test_the_worker_gets_the_bytes_of_the_client_but_one_acknowledgement(
    tmp_path: Path,
) -> None:
    async with (
        a_wire(tmp_path / "w.sock") as (wire, address),
        a_house(tmp_path, Doorman(address).admit) as house,
    ):
        reader, writer = await house.stream()
        assert await reader.readexactly(9) == settings()
        writer.write(GREETING)
        await until(lambda: bytes(wire.heard) == FROM_CLIENT)
        writer.write(settings_ack() + b"anything")
        await until(lambda: bytes(wire.heard) == FROM_CLIENT + settings_ack() + b"anything")
        wire.writers[0].write(b"and back")
        assert await reader.readexactly(8) == b"and back"
        writer.close()
        await wire.ended.wait()


async def test_a_slow_reader_holds_up_who_writes_to_it(tmp_path: Path) -> None:
    async with (
        a_wire(tmp_path / "w.sock") as (wire, address),
        a_house(tmp_path, Doorman(address).admit) as house,
    ):
        reader, writer = await house.stream()
        writer.write(GREETING)
        await until(lambda: wire.writers)
        # More than all buffers on the way take, and nobody reads.
        content = b"z" * (16 << 20)
        wire.writers[0].write(content)
        pipe = next(iter(house.gateway._pipes))
        await until(lambda: not pipe._worker.reading)
        assert pipe.moved()[1] < len(content)
        await reader.readexactly(9)
        assert await reader.readexactly(len(content)) == content
        writer.close()
        await wire.ended.wait()


async def refused(house: House, shows: Any) -> None:
    """A client that is not let in, whatever it says."""
    tls = client_tls(house.authority.client("dev"), shows)
    # In TLS 1.3 the client's side of the handshake ends before the server has seen a certificate.
    reader, writer = await asyncio.open_connection("127.0.0.1", house.gateway.port, ssl=tls)
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(9)
    writer.close()


async def test_without_a_certificate_of_the_right_authority_nobody_gets_in(tmp_path: Path) -> None:
    doorman = Doorman()
    async with a_house(tmp_path, doorman.admit) as house:
        await refused(house, None)
        await until(lambda: house.refused("tls") == 1)
        await refused(house, Authority(tmp_path / "foreign").client("dev"))
        await until(lambda: house.refused("tls") == 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", house.gateway.port)
        writer.write(GREETING)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        await until(lambda: house.refused("tls") == 3)
    assert doorman.order == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [(b"GET / HTTP/1.1\r\n\r\n", "tls"), (b"", "handshake"), (FROM_CLIENT, "handshake")],
    ids=["another protocol", "nothing", "no acknowledgement"],
)
async def test_who_does_not_speak_http2_leases_nothing(
    tmp_path: Path, said: bytes, reason: str
) -> None:
    doorman = Doorman()
    async with a_house(tmp_path, doorman.admit, handshake_seconds=0.2) as house:
        reader, writer = await house.stream()
        writer.write(said)
        assert await reader.read() in (b"", settings())
        await until(lambda: house.refused(reason) == 1)
        writer.close()
    assert doorman.order == []


async def test_a_refusal_is_a_failure_that_grpc_can_read(tmp_path: Path) -> None:
    doorman = Doorman()
    doorman.refusal = TurnedAway(EXHAUSTED, "crowded", "Too many wait, 100 % of them: try later.")
    async with a_house(tmp_path, doorman.admit) as house:
        async with house.channel() as channel:
            for _ in range(2):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(channel)
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert caught.value.details() == str(doorman.refusal)
        assert house.refused("crowded") == 1


async def test_a_refused_client_that_stays_is_sent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagewright.servers.guest.FAREWELL_SECONDS", 0.05)
    doorman = Doorman()
    doorman.refusal = TurnedAway(EXHAUSTED, "crowded", "no")
    async with a_house(tmp_path, doorman.admit) as house:
        reader, writer = await house.stream()
        writer.write(GREETING)
        assert await reader.read() == settings() + settings_ack() + goaway(NO_ERROR)
        writer.close()
        await until(lambda: not house.gateway._tasks)


async def test_nobody_waits_for_ever(tmp_path: Path) -> None:
    doorman = Doorman()
    doorman.open.clear()
    async with (
        a_house(tmp_path, doorman.admit, wait_seconds=0.05) as house,
        house.channel() as channel,
    ):
        with pytest.raises(
            grpc.aio.AioRpcError, match=r"No slot of pool default came free in 0\.05 s"
        ):
            await call(channel)
        assert doorman.order == ["team/dev waits", "left"]


async def test_a_client_that_goes_while_it_waits_leaves_the_queue(tmp_path: Path) -> None:
    doorman = Doorman()
    doorman.open.clear()
    async with a_house(tmp_path, doorman.admit) as house:
        _, writer = await house.stream()
        writer.write(GREETING)
        await until(lambda: doorman.order)
        writer.close()
        await until(lambda: doorman.order == ["team/dev waits", "left"])
        assert house.connections("waiting") == 0


async def test_a_worker_that_does_not_answer_is_replaced_by_another(tmp_path: Path) -> None:
    async with serve_daemon(tmp_path / "d.sock", Daemon({METHOD: echo})) as address:
        doorman = Doorman(f"unix://{tmp_path}/nobody", address)
        async with a_house(tmp_path, doorman.admit) as house, house.channel() as channel:
            assert await call(channel) == hashlib.sha256(b"x").digest()
    waits, lease = "team/dev waits", ["leased", "given back"]
    assert doorman.order[:6] == [waits, *lease, waits, *lease]


async def test_after_three_dead_workers_the_client_is_told(tmp_path: Path) -> None:
    doorman = Doorman(*[f"unix://{tmp_path}/nobody"] * 3)
    async with a_house(tmp_path, doorman.admit) as house, house.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="did not answer: try again"):
            await call(channel)
        assert house.refused("worker") == 1
    assert doorman.order.count("given back") == 3


async def test_a_worker_that_breaks_off_ends_the_client_and_is_not_replaced(
    tmp_path: Path,
) -> None:
    async with a_wire(tmp_path / "w.sock") as (wire, address):
        doorman = Doorman(address)
        async with a_house(tmp_path, doorman.admit) as house:
            reader, writer = await house.stream()
            writer.write(GREETING)
            await until(lambda: wire.writers)
            wire.writers[0].write(b"last words")
            await asyncio.sleep(0)
            wire.writers[0].close()
            assert await reader.read() == settings() + b"last words"
            writer.close()
            await writer.wait_closed()
            await until(lambda: not house.gateway._tasks)
    assert doorman.order == ["team/dev waits", "leased", "given back"]


async def test_who_is_idle_is_asked_to_go_and_then_sent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)
    async with (
        a_wire(tmp_path / "w.sock") as (wire, address),
        a_house(tmp_path, Doorman(address).admit, idle_seconds=0.1) as house,
    ):
        reader, writer = await house.stream()
        writer.write(GREETING)
        assert await reader.readexactly(9 + 17) == settings() + goaway(NO_ERROR)
        # It has something that still runs; then it is quiet again.
        writer.write(frame_of(0x6, 0x1, 0, b"12345678"))
        assert await reader.readexactly(17) == goaway(NO_ERROR)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        await wire.ended.wait()
        await until(lambda: not house.gateway._tasks)


async def test_a_closing_gateway_sends_away_who_waits_and_lets_end_what_runs(
    tmp_path: Path,
) -> None:
    async with a_wire(tmp_path / "w.sock") as (wire, address):
        doorman = Doorman(address)
        async with a_house(tmp_path, doorman.admit) as house:
            reader, writer = await house.stream()
            writer.write(GREETING)
            _, unnamed = await house.stream("silent")
            await until(lambda: wire.heard)
            doorman.open.clear()
            async with house.channel("late") as channel:
                late = asyncio.create_task(call(channel))
                await until(lambda: house.connections("waiting") == 1)
                closing = asyncio.create_task(house.gateway.close(60))
                with pytest.raises(grpc.aio.AioRpcError, match="going down: try again"):
                    await late
                # A call that is still referred to keeps its connection open.
                del late
            with pytest.raises(ConnectionError):
                await house.stream()
            wire.writers[0].write(b"still served")
            await reader.readexactly(9)
            assert await reader.readexactly(12) == b"still served"
            assert not closing.done()
            writer.close()
            unnamed.close()
            await closing


async def test_what_runs_too_long_is_ended_with_the_gateway(tmp_path: Path) -> None:
    async with a_wire(tmp_path / "w.sock") as (wire, address):
        doorman = Doorman(address)
        async with a_house(tmp_path, doorman.admit) as house:
            _, writer = await house.stream()
            writer.write(GREETING)
            await until(lambda: wire.heard)
            await house.gateway.close(0.01)
            await wire.ended.wait()
            writer.close()
    assert doorman.order[-2:] == ["given back", "left"]


@pytest.mark.parametrize(
    ("subject", "tenant"),
    [
        ({"commonName": "ci", "organizationName": "team"}, "team"),
        ({"commonName": "ci"}, "ci"),
        ({"commonName": "ci", "organizationName": ""}, "ci"),
    ],
    ids=["its organization", "without one its name", "an empty one is none"],
)
def test_a_certificate_names_a_tenant(subject: dict[str, str], tenant: str) -> None:
    found = caller_of(subject)
    assert (found.tenant, found.key) == (tenant, "ci")


async def test_a_certificate_that_names_nobody_is_refused_with_a_sentence(tmp_path: Path) -> None:
    doorman = Doorman()
    async with a_house(tmp_path, doorman.admit) as house, house.channel("") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="no common name"):
            await call(channel)
    assert doorman.order == []
