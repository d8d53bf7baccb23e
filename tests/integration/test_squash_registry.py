"""Squash and names in real registries: every kind of file, every way in, and bounded memory."""

import asyncio
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

import devstack
from devstack.images import crane
from devstack.registries import PASSWORD, USERNAME
from imagewright.api.reason import Reason
from imagewright.assembly import buildkit_worker, shared_of, trusted
from imagewright.clients.registry.access import Access
from imagewright.clients.registry.credential import Credential
from imagewright.clients.registry.registry import IMAGES, Manifest, Registry, digest_of
from imagewright.clients.registry.tokens import TokenClient
from imagewright.domain.credential import Login
from imagewright.domain.outcome import Built
from imagewright.domain.plan import Form, Inline, Plan
from imagewright.domain.progress import Progress
from imagewright.domain.reference import parse
from imagewright.images.registry import RegistryStore
from imagewright.main import clock
from imagewright.ports import Failed, Keyring
from imagewright.settings import Settings, SourceSettings
from tests.support.filetree import Unpacker
from tests.support.parts import FakeKeyring

CHUNK = 1 << 20
LAYER = "application/vnd.oci.image.layer.v1.tar"
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service=ep, as setcap writes it."""
LONG = "/".join(["deep" * 12] * 5)


@dataclass
class Layer:
    """A layer that is written by hand, entry by entry."""

    file: IO[bytes] = field(default_factory=io.BytesIO)

    def __post_init__(self) -> None:
        self.tar = tarfile.open(fileobj=self.file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115  # packed() closes it

    def add(self, name: str, content: bytes = b"", **more: Any) -> "Layer":
        """An entry; `kind` is its type, `xattrs` its attributes, all else as tarfile names it."""
        info = tarfile.TarInfo(name)
        info.type = more.pop("kind", tarfile.REGTYPE)
        info.size, info.mtime = len(content), 1_700_000_000
        info.mode = 0o755 if info.isdir() else 0o644
        records: Mapping[str, bytes] = more.pop("xattrs", {})
        info.pax_headers = {
            f"SCHILY.xattr.{key}": value.decode(errors="surrogateescape")
            for key, value in records.items()
        }
        if fine := more.pop("fine", ""):
            info.pax_headers["mtime"] = fine
        for key, value in more.items():
            setattr(info, key, value)
        self.tar.addfile(info, io.BytesIO(content))
        return self

    def packed(self) -> bytes:
        """Its tar."""
        self.tar.close()
        self.file.seek(0)
        return self.file.read()


FOLDER, LINK, SYMLINK, FIFO = b"5", b"1", b"2", b"6"
DEVICE, BLOCK_DEVICE = b"3", b"4"


def every_kind() -> list[bytes]:
    """Three layers above the base, with all that a file can be, and all that can become of it."""
    file: dict[str, Any] = {
        "mode": 0o4755,
        "uid": 1000,
        "gid": 70_000,
        "fine": "1600000000.123456789",
    }
    first = Layer()
    first.add("every", kind=FOLDER, mode=0o1777, uid=5)
    first.add("every/setuid", b"content", **file)
    first.add("every/setuid-too", kind=LINK, linkname="every/setuid", **file)
    first.add("every/capable", b"x", xattrs={"security.capability": CAPABILITY, "user.n": b"\xff"})
    first.add("every/pipe", kind=FIFO, mode=0o600)
    first.add("every/null", kind=DEVICE, devmajor=1, devminor=3)
    first.add("every/loop", kind=BLOCK_DEVICE, devmajor=7, devminor=5)
    first.add("every/dangling", kind=SYMLINK, linkname="../no/where", uid=9)
    for depth in range(1, 6):
        first.add("every/" + "/".join(LONG.split("/")[:depth]), kind=FOLDER)
    first.add(f"every/{LONG}/größe", b"long")
    first.add("gone", kind=FOLDER).add("gone/first", b"linked", **file)
    first.add("every/other", kind=LINK, linkname="gone/first", **file)
    first.add("every/third", kind=LINK, linkname="gone/first", **file)
    first.add("emptied", kind=FOLDER).add("emptied/old", b"old")
    first.add("every/removed", b"x")
    first.add("becomes-folder", b"file").add("becomes-file", kind=FOLDER)
    first.add("becomes-file/x", b"x")
    first.add("replaced", b"1").add("replaced-too", kind=LINK, linkname="replaced")
    second = Layer()
    second.add(".wh.gone").add("emptied", kind=FOLDER).add("emptied/.wh..wh..opq")
    second.add("emptied/new", b"new")
    second.add("becomes-folder", kind=FOLDER, mode=0o700).add("becomes-folder/y", b"y")
    second.add("becomes-file", b"now a file").add("replaced", b"2")
    second.add("bin", kind=FOLDER, uid=3).add("bin/.wh.yes").add("bin/false", b"a file now")
    third = Layer()
    third.add("every", kind=FOLDER, mode=0o750, gid=6, fine="1650000000.5")
    third.add("every/.wh.removed")
    third.add("gone", kind=FOLDER, mode=0o711).add("gone/again", b"again")
    # Whoever writes a layer says all of a folder that is changed: so does this.
    third.add("emptied", kind=FOLDER, mode=0o755).add("emptied/.wh.new").add(
        "tmp", kind=FOLDER, mode=0o1777
    )
    return [layer.packed() for layer in (first, second, third)]


class Ways:
    """The store with the ways into every registry of the stack, and a keyring that knows them."""

    def __init__(self, stack: devstack.Stack, folder: Path) -> None:
        self.stack = stack
        tls = trusted(stack.registries.ca)
        assert tls is not None
        self.authorities = {stack.registries.hosts["tls"]: tls}
        self.store = RegistryStore(self.access, folder, clock)
        self.keyring = FakeKeyring()
        for host in stack.registries.hosts.values():
            self.keyring.held[host] = Login(USERNAME, PASSWORD)

    def host(self, name: str) -> str:
        """Where that registry is."""
        return self.stack.registries.hosts[name]

    def access(self, keyring: Keyring) -> Access:
        async def credentials(host: str) -> Credential | None:
            found = await keyring.login(host)
            return Credential(found.username, found.password) if found else None

        return Access(credentials, TokenClient(), authorities=self.authorities)

    def registry(self, host: str) -> Registry:
        """A client of it."""
        return Registry(host, self.access(self.keyring))

    async def stored(self, repository: str, file: IO[bytes]) -> tuple[str, str, int]:
        """Send a layer's tar, packed; its digest, its uncompressed one, and its size."""
        made = await asyncio.to_thread(packed, file)
        async with self.registry(parse(self.stack.base_image).registry) as registry:
            await registry.upload(repository, made[0], pieces_of(file))
        return made

    async def image(
        self, repository: str, layers: list[bytes], stored: Sequence[tuple[str, str, int]] = ()
    ) -> Built:
        """The stack's base image with these layers on it, pushed by its digest."""
        name = parse(self.stack.base_image)
        async with self.registry(name.registry) as registry:
            found = await registry.manifest(name.repository, name.tag)
            manifest = json.loads(found.content)
            held = registry.blob(name.repository, manifest["config"]["digest"])
            config = json.loads(b"".join([piece async for piece in held]))
            base = tuple(config["rootfs"]["diff_ids"])
            for layer in manifest["layers"]:
                assert await registry.mount(repository, layer["digest"], name.repository)
            for number, layer in enumerate(layers):
                await registry.upload_bytes(repository, layer)
                config["rootfs"]["diff_ids"].append(digest_of(layer))
                config["history"].append({"created_by": f"layer {number}"})
                manifest["layers"].append(descriptor(LAYER, layer))
            for digest, diff_id, size in stored:
                config["rootfs"]["diff_ids"].append(diff_id)
                config["history"].append({"created_by": "a stored layer"})
                form = {"mediaType": f"{LAYER}+gzip", "digest": digest, "size": size}
                manifest["layers"].append(form)
            content = json.dumps(config).encode()
            await registry.upload_bytes(repository, content)
            manifest["config"] = descriptor(manifest["config"]["mediaType"], content)
            made = json.dumps(manifest).encode()
            digest = digest_of(made)
            await registry.put_manifest(repository, digest, Manifest(digest, IMAGES[0], made))
        return Built(
            digest, digest_of(content), repository=f"{name.registry}/{repository}", base=base
        )


def packed(file: IO[bytes]) -> tuple[str, str, int]:
    """Pack a file in its place, lightly."""
    with tempfile.TemporaryFile() as out:
        file.seek(0)
        inner, outer, size = hashlib.sha256(), hashlib.sha256(), 0
        pack = zlib.compressobj(1, wbits=31)
        while True:
            piece = file.read(CHUNK)
            inner.update(piece)
            data = pack.compress(piece) if piece else pack.flush()
            outer.update(data)
            size += out.write(data)
            if not piece:
                break
        out.seek(0)
        file.seek(0)
        file.truncate()
        shutil.copyfileobj(out, file, CHUNK)
    return f"sha256:{outer.hexdigest()}", f"sha256:{inner.hexdigest()}", size


async def pieces_of(file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    """A file's content."""
    file.seek(0)
    while piece := await asyncio.to_thread(file.read, CHUNK):
        yield piece


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


@pytest.fixture
def ways(stack: devstack.Stack, tmp_path: Path) -> Ways:
    return Ways(stack, tmp_path)


@pytest.mark.row("seed-1")
async def test_every_kind_of_file_is_the_same_after_a_squash(
    ways: Ways, unpack: Unpacker, tmp_path: Path
) -> None:
    source = await ways.image("squash/every", every_kind())
    squashed = await ways.store.squash(source, ways.keyring)
    first, second = [
        await asyncio.to_thread(unpack, f"{one.repository}@{one.image_digest}", tmp_path / name)
        for name, one in (("source", source), ("squashed", squashed))
    ]
    assert second == first
    # What is compared is there at all.
    assert second["every"]["mode"] == "drwxr-x---"
    assert second["every/setuid-too"]["mode"] == "-rwsr-xr-x"
    assert second["every/setuid-too"]["owner"] == (1000, 70_000)
    assert second["every/third"]["names"] == ["every/other", "every/third"]
    assert second["every/capable"]["xattrs"]["security.capability"] == CAPABILITY
    assert second["every/null"]["device"] == os.makedev(1, 3)
    assert second["emptied"]["mode"] == "drwxr-xr-x"
    for gone in ("gone/first", "emptied/old", "emptied/new", "bin/yes", "becomes-file/x"):
        assert gone not in second


@pytest.mark.row("seed-1")
async def test_a_squashed_image_runs_and_its_source_stays(ways: Ways, tmp_path: Path) -> None:
    source = await ways.image("squash/runs", every_kind())
    squashed = await ways.store.squash(source, ways.keyring)
    name = parse(f"{source.repository}:squashed")
    pushed = await ways.store.tag(squashed, name, ways.keyring)
    stack = ways.stack
    assert crane(stack, "digest", str(name)) == pushed.digest == squashed.image_digest
    assert crane(stack, "digest", f"{source.repository}@{source.image_digest}")
    manifest = json.loads(crane(stack, "manifest", str(name)))
    assert len(manifest["layers"]) == len(source.base) + 1
    text = f"FROM {name}\nRUN test -u /every/setuid && test ! -e /bin/yes && echo fine > /out\n"
    (tmp_path / "Dockerfile").write_text(text)
    command = [str(stack.binaries["buildctl"]), "--addr", stack.buildkit, "build"]
    command += ["--frontend=dockerfile.v0", f"--local=context={tmp_path}", "--no-cache"]
    command += [f"--local=dockerfile={tmp_path}", f"--output=type=local,dest={tmp_path}/out"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    assert (tmp_path / "out" / "out").read_text() == "fine\n"


PRIVATE = ["htpasswd", "token", "tls"]


@pytest.mark.row("seed-2")
@pytest.mark.parametrize("name", PRIVATE)
async def test_an_image_is_copied_to_a_private_registry_squashed_there_and_copied_back(
    ways: Ways, name: str
) -> None:
    source = await ways.image(f"squash/to-{name}", every_kind())
    there = parse(f"{ways.host(name)}/team/app:1")
    pushed = await ways.store.tag(source, there, ways.keyring)
    assert pushed.digest == source.image_digest
    copied = Built(source.image_digest, source.image_id, repository=there.name, base=source.base)
    squashed = await ways.store.squash(copied, ways.keyring)
    # Another repository of the same registry: its blobs are mounted.
    other = parse(f"{ways.host(name)}/team/other:1")
    await ways.store.tag(squashed, other, ways.keyring)
    back = parse(f"{ways.host('plain')}/squash/from-{name}:1")
    await ways.store.tag(squashed, back, ways.keyring)
    assert crane(ways.stack, "digest", str(back)) == squashed.image_digest
    async with ways.registry(other.registry) as registry:
        found = await registry.manifest(other.repository, other.tag)
        assert found.digest == squashed.image_digest
        for layer in json.loads(found.content)["layers"]:
            assert await registry.has_blob(other.repository, layer["digest"])


@pytest.mark.row("seed-2")
async def test_an_image_goes_from_one_private_registry_to_another(ways: Ways) -> None:
    source = await ways.image("squash/between", every_kind()[:1])
    place = source.repository
    for name in PRIVATE:
        there = parse(f"{ways.host(name)}/team/between:1")
        built = Built(source.image_digest, repository=place)
        assert (await ways.store.tag(built, there, ways.keyring)).digest == source.image_digest
        place = there.name


@pytest.mark.parametrize("name", PRIVATE)
@pytest.mark.parametrize("known", [False, True], ids=["nobody", "a wrong password"])
async def test_a_registry_that_does_not_let_us_says_so(
    ways: Ways, name: str, *, known: bool
) -> None:
    source = await ways.image(f"squash/refused-{name}", every_kind()[:1])
    keyring = FakeKeyring()
    if known:
        keyring.held[ways.host(name)] = Login(USERNAME, "wrong-password")
    there = parse(f"{ways.host(name)}/refused/app:1")
    with pytest.raises(Failed) as caught:
        await ways.store.tag(source, there, keyring)
    assert caught.value.reason is Reason.PUSH_UNAUTHORIZED
    assert "wrong-password" not in caught.value.message
    async with ways.registry(there.registry) as registry:
        assert not await registry.has_manifest(there.repository, source.image_digest)


STEPS = """\
FROM {base}
RUN mkdir /new && echo 1 > /new/a && echo 2 > /new/b && ln /new/b /new/c
RUN rm /new/a && rm /bin/yes
"""


@pytest.mark.row("seed-1")
@pytest.mark.parametrize("compression", ["zstd", "uncompressed"])
async def test_layers_are_read_however_they_are_packed(
    stack: devstack.Stack, unpack: Unpacker, tmp_path: Path, compression: str
) -> None:
    settings = Settings(sources=SourceSettings(folder=tmp_path / "fetched"))
    name = f"{stack.registry}/squash/{compression}"
    async with (
        shared_of(settings, clock) as shared,
        buildkit_worker(stack.buildkit, None, shared) as worker,
    ):
        for kind in ("plain", "squashed"):
            plan = Plan(
                Inline({"Dockerfile": STEPS.format(base=stack.base_image).encode()}),
                images=(f"{name}:{kind}",),
                squash=kind == "squashed",
                form=Form(compression=compression),
            )
            ref = f"{compression}-{kind}"
            await worker.backend.build(ref, plan, FakeKeyring(), Progress().apply)
    first, second = [
        await asyncio.to_thread(unpack, f"{name}:{kind}", tmp_path / kind)
        for kind in ("plain", "squashed")
    ]
    assert second == first
    assert second["new/c"]["names"] == ["new/b", "new/c"]
    assert not {"new/a", "bin/yes"} & second.keys()
    layers = [
        json.loads(crane(stack, "manifest", f"{name}:{kind}"))["layers"]
        for kind in ("plain", "squashed")
    ]
    assert layers[1][:-1] == layers[0][:-2]


# ── Memory ──

PEAK_MIB = 120
"""With 2.1 GB in 300 000 entries it was 130 MiB, of which 50 are the program itself."""
BIG = 100, 20_000
"""Of each of three layers: its megabytes, and its entries."""


def big_layer(file: IO[bytes], number: int, megabytes: int, files: int) -> None:
    """A tar of that size in few files, and as many small ones; hard to pack."""
    noise = os.urandom(1 << 20)
    with tarfile.open(fileobj=file, mode="w|") as archive:
        for at in range(files):
            info = tarfile.TarInfo(f"usr/lib/part-{number}/folder-{at % 200}/file-number-{at}.py")
            archive.addfile(info)
            archive.members = []  # type: ignore[attr-defined]
        for at in range(megabytes // 50):
            info = tarfile.TarInfo(f"opt/data-{number}-{at}")
            info.size = 50 << 20
            archive.addfile(info, Repeated(noise, info.size))


class Repeated(io.RawIOBase):
    """So many bytes of the same noise."""

    def __init__(self, noise: bytes, size: int) -> None:
        self._noise, self._size, self._at = noise, size, 0

    def read(self, size: int = -1) -> bytes:
        begin = self._at % len(self._noise)
        piece = self._noise[begin : begin + min(size, self._size - self._at)]
        self._at += len(piece)
        return piece


@pytest.mark.timeout(300)
async def test_a_big_image_is_squashed_in_little_memory(ways: Ways, tmp_path: Path) -> None:
    megabytes, files = BIG
    layers = []
    for number in range(3):
        with tempfile.TemporaryFile(dir=tmp_path) as file:
            await asyncio.to_thread(big_layer, file, number, megabytes, files)
            layers.append(await ways.stored("squash/big", file))
    source = await ways.image("squash/big", [], layers)
    command = [sys.executable, "-m", "tests.support.squash_alone"]
    command += [source.repository, source.image_digest, str(tmp_path), *source.base]
    root = str(Path(__file__).parents[2])
    run = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}/operator"},
        check=True,
        capture_output=True,
    )
    said = json.loads(run.stdout)
    assert said["peak_kib"] >> 10 < PEAK_MIB
    manifest = json.loads(crane(ways.stack, "manifest", f"{source.repository}@{said['digest']}"))
    assert len(manifest["layers"]) == len(source.base) + 1
    assert manifest["layers"][-1]["size"] > 3 * megabytes << 19
