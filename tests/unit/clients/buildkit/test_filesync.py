"""FileSync, against a receiver that follows fsutil's receive.go and checks what that checks."""

import asyncio
import gc
import io
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagewright.clients.buildkit.calls import unary
from imagewright.clients.buildkit.filesync import CHUNK, DIFF_COPY, FileSync
from imagewright.clients.buildkit.frames import END_STREAM, ErrorCode, Kind, Setting, frame
from imagewright.clients.buildkit.http2 import Connection
from imagewright.clients.buildkit.proto.fsutil_pb2 import Packet, Stat
from imagewright.clients.buildkit.trees import Directory, Entry, Files, Tree
from imagewright.clients.buildkit.walk import GO_TYPE
from imagewright.clients.buildkit.wire import data_packet
from tests.support.grpc_go import Answer, Talk, in_time

STAT, REQ, DATA = Packet.PACKET_STAT, Packet.PACKET_REQ, Packet.PACKET_DATA
FIN, ERR = Packet.PACKET_FIN, Packet.PACKET_ERR
Metadata = list[tuple[str, str]]
CONTEXT: Metadata = [("dir-name", "context")]


@dataclass(slots=True)
class Receiver:
    """Takes one tree. `wants` says which files it asks for; it asks while the walk goes on."""

    talk: Talk
    wants: Callable[[Stat], bool] = lambda _: True
    stats: list[Stat] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    walked: bool = False
    error: str = ""
    finishes: bool = True
    """Whether it says FIN when it has all that it wants."""
    _seen: int = 0

    async def run(self, metadata: Metadata = CONTEXT) -> Answer:
        """The whole transfer."""
        self.talk.open(1, DIFF_COPY, metadata)
        answer = self.talk.answer(1)
        while not answer.ended:
            await self.more()
        return answer

    async def more(self) -> None:
        """Take what comes next."""
        answer = self.talk.answer(1)
        await self.talk.until(lambda: len(answer.messages) > self._seen or answer.ended)
        news = answer.messages[self._seen :]
        self._seen += len(news)
        for message in news:
            self.take(message)

    def take(self, message: bytes) -> None:
        packet = Packet.FromString(message)
        if packet.type == STAT and not packet.HasField("stat"):
            assert message == b""
            self.walked = True
        elif packet.type == STAT:
            assert not self.walked
            self.stats.append(packet.stat)
            if not packet.stat.mode & GO_TYPE and not packet.stat.linkname:
                self.want(len(self.stats) - 1)
        elif packet.type == DATA:
            self.data(packet)
        elif packet.type == ERR:
            self.error = packet.data.decode()
        elif packet.type == FIN:
            self.talk.feed(frame(Kind.DATA, END_STREAM, 1))
            return
        if self.walked and not self.open and self.finishes and not self.error:
            self.finishes = False
            self.say(type=FIN)

    def want(self, number: int) -> None:
        if self.wants(self.stats[number]):
            self.open.add(number)
            self.contents[self.stats[number].path] = b""
            self.say(type=REQ, ID=number)

    def data(self, packet: Packet) -> None:
        assert packet.ID in self.open
        if packet.data:
            self.contents[self.stats[packet.ID].path] += packet.data
        else:
            self.open.remove(packet.ID)

    def say(self, **packet: object) -> None:
        self.talk.say(1, Packet(**packet).SerializeToString())  # type: ignore[arg-type]


@contextmanager
def receiver(
    tree: Tree, wants: Callable[[Stat], bool] = lambda _: True, settings: bytes = b""
) -> Iterator[Receiver]:
    talk = Talk(Connection(FileSync({"context": tree}).handlers()))
    talk.greet(settings)
    yield Receiver(talk, wants)


def disk(root: Path, files: Mapping[str, bytes]) -> Directory:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return Directory(root)


FILES = {
    "Dockerfile": b"FROM scratch\n",
    "empty": b"",
    "src/a.c": b"int a;",
    "src/chunk": b"c" * CHUNK,
    "src/more": b"m" * (2 * CHUNK + 1),
    "z": b"z",
}


@pytest.mark.parametrize("where", ["disk", "memory"])
@pytest.mark.parametrize(
    "window",
    [
        pytest.param(0, id="as grpc-go begins"),
        pytest.param(1000, id="with windows smaller than most messages"),
    ],
)
async def test_a_tree_arrives_whole(tmp_path: Path, where: str, window: int) -> None:
    files = FILES if not window else {**FILES, "src/chunk": b"c" * 3000, "src/more": b""}
    tree: Tree = disk(tmp_path, files) if where == "disk" else Files(files)
    initial = Setting.INITIAL_WINDOW_SIZE.to_bytes(2, "big") + window.to_bytes(4, "big")
    with receiver(tree, settings=initial if window else b"") as taken:
        answer = await taken.run()

    assert answer.status == 0
    assert taken.contents == files
    assert [stat.path for stat in taken.stats] == sorted([*files, "src"])


async def test_contents_come_in_pieces_of_512_kib(tmp_path: Path) -> None:
    with receiver(disk(tmp_path, {"f": b"x" * (2 * CHUNK + 1)})) as taken:
        answer = await taken.run()

    packets = [Packet.FromString(message) for message in answer.messages]
    assert [len(p.data) for p in packets if p.type == DATA] == [CHUNK, CHUNK, 1, 0]


async def test_numbers_count_folders_and_links_too(tmp_path: Path) -> None:
    tree = disk(tmp_path, {"a/b": b"1", "d": b"2"})
    (tmp_path / "c").symlink_to("d")
    with receiver(tree) as taken:
        answer = await taken.run()

    packets = [Packet.FromString(message) for message in answer.messages]
    assert {packet.ID for packet in packets if packet.type == DATA} == {1, 3}
    assert taken.contents == {"a/b": b"1", "d": b"2"}


async def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    with receiver(disk(tmp_path, FILES), wants=lambda stat: stat.path == "z") as taken:
        await taken.run()

    assert taken.contents == {"z": b"z"}


async def test_walk_and_contents_share_the_stream_without_tearing_messages() -> None:
    files = {f"{number:04}": b"%d" % number * 50 for number in range(3000)}
    small = Setting.INITIAL_WINDOW_SIZE.to_bytes(2, "big") + (5000).to_bytes(4, "big")
    with receiver(Files(files), settings=small) as taken:
        answer = await taken.run()

    assert answer.status == 0
    assert taken.contents == files


async def test_thousands_of_small_files_take_few_frames() -> None:
    files = dict.fromkeys((f"{number:04}" for number in range(2000)), b"x")
    with receiver(Files(files), wants=lambda _: False) as taken:
        await taken.run()

    assert len(taken.stats) == 2000
    assert sum(kind == Kind.DATA for kind, *_ in taken.talk.frames) < 20


def become_nothing(file: Path) -> None:
    file.unlink()


def become_a_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/passwd")


def become_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def become_a_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    "happens", [become_nothing, become_a_link, become_a_folder, become_a_fifo]
)
async def test_of_a_file_that_vanished_only_its_end_is_sent(
    tmp_path: Path, happens: Callable[[Path], None]
) -> None:
    def wants(stat: Stat) -> bool:
        if stat.path == "a":
            happens(tmp_path / "a")
        return True

    with receiver(disk(tmp_path, {"a": b"secret", "b": b"b"}), wants) as taken:
        answer = await taken.run()

    assert answer.status == 0
    assert taken.contents == {"a": b"", "b": b"b"}


class Denying(Files):
    """Files that may be seen and not be read."""

    def open(self, path: str) -> BinaryIO:
        raise PermissionError(13, "Permission denied", path)


async def test_a_file_that_may_not_be_read_is_no_empty_file() -> None:
    with receiver(Denying({"a": b"1"})) as taken:
        answer = await taken.run()

    assert taken.error == "[Errno 13] Permission denied: 'a'"
    assert answer.status == 2
    assert "Permission denied" in answer.message


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        pytest.param(
            Packet(type=REQ, ID=99), 3, "Entry 99 is no file", id="a number that was never sent"
        ),
        pytest.param(Packet(type=REQ, ID=0), 3, "Entry 0 is no file", id="a folder"),
        pytest.param(
            Packet(type=REQ, ID=1), 3, "Entry 1 is no file, or was sent", id="a second time"
        ),
        pytest.param(
            Packet(type=ERR, data=b"disk full"), 10, "disk full", id="an error of the daemon's"
        ),
    ],
)
async def test_what_the_daemon_may_not_ask_ends_the_transfer(
    said: Packet, status: int, reason: str
) -> None:
    with receiver(Files({"d/f": b"1"})) as taken:
        taken.finishes = False
        taken.talk.open(1, DIFF_COPY, CONTEXT)
        while taken.open or not taken.walked:
            await taken.more()
        taken.talk.say(1, said.SerializeToString())
        answer = await taken.talk.ended(1)

    assert answer.status == status
    assert reason in answer.message
    assert Packet.FromString(answer.messages[-1]).type == ERR


@pytest.mark.parametrize(
    ("last", "status"),
    [
        pytest.param(frame(Kind.DATA, END_STREAM, 1), 10, id="the daemon goes without FIN"),
        pytest.param(
            frame(Kind.DATA, END_STREAM, 1, b"\0\0\0\0\1\xff"), 3, id="the daemon says nonsense"
        ),
    ],
)
async def test_an_end_in_the_middle_ends_the_call(last: bytes, status: int) -> None:
    with receiver(Files({"f": b"1"})) as taken:
        taken.talk.open(1, DIFF_COPY, CONTEXT)
        taken.talk.feed(last)
        answer = await taken.talk.ended(1)

    assert answer.status == status


@pytest.mark.parametrize(
    ("metadata", "paths"),
    [
        pytest.param([], ["a", "ä b", "ä b/c", "é"], id="all"),
        pytest.param(
            [("exclude-patterns", "a"), ("exclude-patterns", "é")],
            ["ä b", "ä b/c"],
            id="more than one pattern",
        ),
        pytest.param(
            [("include-patterns", "%C3%A4+b"), ("include-patterns-encoded", "1")],
            ["ä b", "ä b/c"],
            id="patterns that are escaped",
        ),
        pytest.param(
            [("include-patterns", "ä b")], ["ä b", "ä b/c"], id="patterns of old daemons"
        ),
        pytest.param([("include-patterns", "%C3%A9")], [], id="patterns that look escaped"),
        pytest.param([("followpaths", "a"), ("followpaths", "x")], ["a"], id="paths to follow"),
    ],
)
async def test_the_request_is_in_the_metadata(metadata: Metadata, paths: list[str]) -> None:
    with receiver(Files({"a": b"", "é": b"", "ä b/c": b""})) as taken:
        await taken.run([*CONTEXT, *metadata])

    assert sorted(stat.path for stat in taken.stats) == sorted(paths)


@pytest.mark.parametrize(
    ("metadata", "status", "reason"),
    [
        pytest.param([("dir-name", "home")], 5, "no directory 'home'", id="another directory"),
        pytest.param([], 5, "no directory ''", id="no directory"),
        pytest.param(
            [*CONTEXT, ("exclude-patterns", "[")], 2, "The pattern '['", id="a bad pattern"
        ),
    ],
)
async def test_what_cannot_be_served_is_said_so(
    metadata: Metadata, status: int, reason: str
) -> None:
    with receiver(Files({"a": b""})) as taken:
        answer = await taken.run(metadata)

    assert answer.status == status
    assert reason in answer.message


async def test_a_name_that_is_not_utf_8_ends_the_transfer_with_a_sentence(tmp_path: Path) -> None:
    tree = disk(tmp_path, {os.fsdecode(b"caf\xe9"): b"", "a": b""})
    with receiver(tree) as taken:
        answer = await taken.run()

    assert taken.error == r"The name b'caf\xe9' is not UTF-8; BuildKit's protocol cannot carry it."
    assert answer.status == 2


class Slow(Files):
    """Files whose disk hangs until it is told to go on."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(files)
        self.reading, self.go_on = threading.Event(), threading.Event()
        self.opened: list[BinaryIO] = []

    def open(self, path: str) -> BinaryIO:
        self.opened.append(super().open(path))
        self.reading.set()
        assert self.go_on.wait(5)
        return self.opened[-1]


async def test_a_disk_that_hangs_stops_nothing_else() -> None:
    async def serving(_: bytes) -> bytes:
        return b"\x08\x01"

    tree = Slow({"f": b"content"})
    handlers = FileSync({"context": tree}).handlers()
    talk = Talk(Connection({**handlers, "/health": unary(serving)}))
    talk.greet()
    taken = Receiver(talk)
    talk.open(1, DIFF_COPY, CONTEXT)
    while not taken.open:
        await taken.more()
    talk.ask(3, "/health")
    health = await talk.ended(3)
    hung = not talk.answer(1).ended
    tree.go_on.set()
    while not talk.answer(1).ended:
        await taken.more()

    assert hung
    assert health.messages == [b"\x08\x01"]
    assert taken.contents == {"f": b"content"}


async def test_a_file_that_is_being_read_is_closed_when_the_call_is_cancelled() -> None:
    tree = Slow({"f": b"content"})
    with receiver(tree) as taken:
        taken.talk.open(1, DIFF_COPY, CONTEXT)
        while not taken.open:
            await taken.more()
        await in_time(asyncio.to_thread(tree.reading.wait, 5))
        taken.talk.feed(frame(Kind.RST_STREAM, 0, 1, ErrorCode.CANCEL.to_bytes(4, "big")))
        await in_time(taken.talk.connection.close())
        tree.go_on.set()
        await in_time(asyncio.to_thread(until, lambda: tree.opened[0].closed))

    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def until(met: Callable[[], bool]) -> None:
    while not met():
        pass


async def test_a_large_file_is_closed_when_the_call_is_cancelled(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with receiver(disk(tmp_path, {"f": b"x" * (8 << 20)})) as taken:
        taken.talk.generous = False
        taken.talk.open(1, DIFF_COPY, CONTEXT)
        while not taken.open:
            await taken.more()
        await taken.talk.until(lambda: len(taken.talk.answer(1).body) > 60_000)
        during = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        await in_time(taken.talk.connection.close())
    gc.collect()

    assert during > before
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


class Endless(Files):
    """A file that has more to it than it said, as a log that is being written."""

    def entries(self, folder: str) -> list[Entry]:
        return [Entry(entry.name, entry.mode, 1) for entry in super().entries(folder)]

    def open(self, path: str) -> BinaryIO:
        return io.BytesIO(b"x" * 3_000_000)


async def test_a_file_that_grew_is_sent_as_it_is_now() -> None:
    with receiver(Endless({"log": b""})) as taken:
        answer = await taken.run()

    assert answer.status == 0
    assert len(taken.contents["log"]) == 3_000_000


def test_the_shared_key_changes_with_what_is_shared(tmp_path: Path) -> None:
    one = FileSync({"context": Directory(tmp_path), "dockerfile": Files({"Dockerfile": b"1"})})
    two = FileSync({"context": Directory(tmp_path), "dockerfile": Files({"Dockerfile": b"2"})})
    again = FileSync({"dockerfile": Files({"Dockerfile": b"1"}), "context": Directory(tmp_path)})

    assert one.shared_key == again.shared_key != two.shared_key


@given(st.integers(0, 2**32 - 1), st.binary(max_size=300))
def test_hand_made_packets_are_those_of_protobuf(number: int, chunk: bytes) -> None:
    packet = Packet(type=DATA, ID=number, data=chunk)

    assert data_packet(number, chunk) == packet.SerializeToString()


NAMES = st.text("abc-.", min_size=1, max_size=3).filter(lambda name: name not in {".", ".."})


@settings(max_examples=25)
@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=20), st.integers(1, 3000))
def test_any_tree_passes_any_window(files: dict[str, bytes], window: int) -> None:
    async def run() -> dict[str, bytes]:
        initial = Setting.INITIAL_WINDOW_SIZE.to_bytes(2, "big") + window.to_bytes(4, "big")
        with receiver(Files(files), settings=initial) as taken:
            await taken.run()
        return taken.contents

    assert asyncio.run(run()) == files
