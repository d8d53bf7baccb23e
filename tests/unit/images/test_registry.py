"""Squashing and naming in a registry that may misbehave."""

import asyncio
import gzip
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from imagewright.api.reason import Reason
from imagewright.clients.registry.access import Access
from imagewright.clients.registry.credential import Credential
from imagewright.clients.registry.errors import (
    Corrupt,
    NotFound,
    Refused,
    RegistryError,
    TlsFailed,
    Unauthorized,
    Unreachable,
)
from imagewright.clients.registry.registry import IMAGES, INDEXES
from imagewright.clients.registry.tokens import TokenClient
from imagewright.domain.credential import Login
from imagewright.domain.outcome import Built
from imagewright.domain.reference import Reference
from imagewright.failure.registry import translate
from imagewright.images.layer import Limits
from imagewright.images.registry import RegistryStore
from imagewright.ports import Error, Failed, Keyring, Rejected, Unavailable
from tests.support.fake_registry import (
    PASSWORD,
    USER,
    FakeRegistry,
    answers,
    breaks_off,
    digest,
    serve,
)
from tests.support.parts import FakeKeyring

OCI, DOCKER = IMAGES
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def access(keyring: Keyring) -> Access:
    async def credentials(host: str) -> Credential | None:
        found = await keyring.login(host)
        return Credential(found.username, found.password) if found else None

    return Access(credentials, TokenClient())


@pytest.fixture
def store(tmp_path: Path) -> RegistryStore:
    return RegistryStore(access, tmp_path, lambda: NOW)


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with serve(FakeRegistry()) as made:
        yield made


def a_layer(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1 if ".wh." not in name else 0
            archive.addfile(info, io.BytesIO(b"x"))
    return buffer.getvalue()


def pack(content: bytes) -> bytes:
    """Packed, and the same each time."""
    return gzip.compress(content, mtime=0)


BASE, ONE, TWO = a_layer("old", "kept"), a_layer("a", "b"), a_layer(".wh.old", ".wh.a", "c")
HISTORY: list[dict[str, Any]] = [
    {"created_by": "base"},
    {"created_by": "ENV base", "empty_layer": True},
    {"created_by": "one"},
    {"created_by": "ENV a", "empty_layer": True},
    {"created_by": "two"},
]


def put(fake: FakeRegistry, *layers: bytes, form: str = OCI, **changed: Any) -> Built:
    """An image in the repository `a`, of a base of one layer, with parts of it changed."""
    packed = [pack(layer) for layer in layers]
    config = {
        "architecture": "amd64",
        "config": {"Env": ["A=1"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        "history": HISTORY,
        **changed.get("config", {}),
    }
    held = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": form,
        "config": {"mediaType": "config/form", "digest": digest(held), "size": len(held)},
        "layers": [
            {"mediaType": "layer/form", "digest": digest(one), "size": 1} for one in packed
        ],
        "annotations": {"a": "b"},
        **changed.get("manifest", {}),
    }
    content = json.dumps(manifest).encode()
    for blob in (held, *packed):
        fake.blobs["a", digest(blob)] = blob
    fake.manifests["a", digest(content)] = (form, content)
    base = (digest(layers[0]),) if layers else ()
    return Built(digest(content), digest(held), repository=f"{fake.host}/a", base=base)


def held(fake: FakeRegistry, built: Built) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The form, manifest and configuration of an image."""
    form, content = fake.manifests["a", built.image_digest]
    manifest = json.loads(content)
    return form, manifest, json.loads(fake.blobs["a", manifest["config"]["digest"]])


@pytest.mark.row("seed-1")
@pytest.mark.parametrize(
    ("form", "layer_form"),
    [
        (OCI, "application/vnd.oci.image.layer.v1.tar+gzip"),
        (DOCKER, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    ],
)
async def test_the_layers_above_the_base_become_one_and_the_source_stays(
    fake: FakeRegistry, store: RegistryStore, form: str, layer_form: str
) -> None:
    source = put(fake, BASE, ONE, TWO, form=form)
    before = dict(fake.manifests)
    made = await store.squash(source, FakeKeyring())

    found_form, manifest, config = held(fake, made)
    assert made.image_digest != source.image_digest
    assert made.image_id == manifest["config"]["digest"]
    assert before.items() <= fake.manifests.items()
    assert found_form == manifest["mediaType"] == form
    assert manifest["annotations"] == {"a": "b"}
    assert manifest["config"]["mediaType"] == "config/form"
    assert config["config"] == {"Env": ["A=1"]}
    base, merged = manifest["layers"]
    assert base["digest"] == digest(pack(BASE))
    assert merged["mediaType"] == layer_form
    blob = fake.blobs["a", merged["digest"]]
    assert merged["size"] == len(blob)
    content = gzip.decompress(blob)
    assert config["rootfs"] == {"type": "layers", "diff_ids": [digest(BASE), digest(content)]}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == ["b", "c", ".wh.old"]


@pytest.mark.row("seed-11")
async def test_the_history_says_what_was_done(fake: FakeRegistry, store: RegistryStore) -> None:
    source = put(fake, BASE, ONE, TWO)
    _, _, config = held(fake, await store.squash(source, FakeKeyring()))
    *steps, last = config["history"]
    assert [step["created_by"] for step in steps] == [step["created_by"] for step in HISTORY]
    assert [step.get("empty_layer", False) for step in steps] == [False, True, True, True, True]
    assert last == {
        "created": "2026-01-02T03:04:05+00:00",
        "comment": f"merge {source.image_id} to {digest(BASE)}",
    }
    assert config["created"] == last["created"]


async def test_from_scratch_all_layers_become_one(
    fake: FakeRegistry, store: RegistryStore
) -> None:
    source = put(fake, ONE, TWO, config={"history": None})
    source = Built(source.image_digest, "sha256:id", repository=source.repository)
    _, manifest, config = held(fake, await store.squash(source, FakeKeyring()))
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"]) == 1
    assert [step["comment"] for step in config["history"]] == ["create new from sha256:id"]


NOTHING = {
    "no layer at all": [BASE],
    "a layer without entries": [BASE, a_layer()],
    "two layers without entries": [BASE, a_layer(), a_layer()],
    "a layer that takes back what one before it did": [BASE, a_layer("a"), a_layer(".wh.a")],
}


@pytest.mark.row("seed-11")
@pytest.mark.parametrize("layers", NOTHING.values(), ids=NOTHING)
async def test_there_is_nothing_to_squash_in(
    fake: FakeRegistry, store: RegistryStore, layers: list[bytes]
) -> None:
    built = put(fake, *layers)
    with pytest.raises(
        Failed, match="error squashing image: there is nothing to squash"
    ) as caught:
        await store.squash(built, FakeKeyring())
    assert caught.value.reason is Reason.SQUASH_FAILED
    assert len(fake.manifests) == 1


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "layers that the configuration does not know": (
        {"config": {"rootfs": {"diff_ids": [digest(BASE)]}}},
        "do not fit",
    ),
    "a configuration without layers": ({"config": {"rootfs": {}}}, "do not fit"),
    "a history that is none": ({"config": {"history": [1]}}, "do not fit"),
    "layers that are none": ({"manifest": {"layers": [1, 2, 3]}}, "do not fit"),
    "no configuration": ({"manifest": {"config": {}}}, "its manifest cannot be read"),
    "another base": (
        {"config": {"rootfs": {"diff_ids": [digest(b""), digest(ONE), digest(TWO)]}}},
        "not those of its base",
    ),
    "another layer than it says": (
        {"config": {"rootfs": {"diff_ids": [digest(BASE), digest(TWO), digest(ONE)]}}},
        "is another one",
    ),
}


@pytest.mark.parametrize(("changed", "text"), BAD.values(), ids=BAD)
async def test_an_image_cannot_be_squashed_with(
    fake: FakeRegistry, store: RegistryStore, changed: dict[str, Any], text: str
) -> None:
    built = put(fake, BASE, ONE, TWO, **changed)
    with pytest.raises(Failed, match=f"error squashing image: .*{text}") as caught:
        await store.squash(built, FakeKeyring())
    assert caught.value.reason is Reason.SQUASH_FAILED


async def test_an_index_is_refused(fake: FakeRegistry, store: RegistryStore) -> None:
    built = put(fake, BASE, ONE, form=INDEXES[0])
    with pytest.raises(Rejected, match=r"spec\.platforms") as caught:
        await store.squash(built, FakeKeyring())
    assert caught.value.reason is Reason.FEATURE_UNSUPPORTED


TOO_MUCH = {
    "more entries": (Limits(entries=3), "more than 3 entries"),
    "more bytes in all its layers": (Limits(unpacked=15_000), "hold more than"),
}


@pytest.mark.parametrize(("limits", "text"), TOO_MUCH.values(), ids=TOO_MUCH)
async def test_a_bomb_is_refused_that_has(
    fake: FakeRegistry, tmp_path: Path, limits: Limits, text: str
) -> None:
    store = RegistryStore(access, tmp_path, lambda: NOW, limits)
    with pytest.raises(Failed, match=text):
        await store.squash(put(fake, BASE, ONE, TWO), FakeKeyring())


async def test_a_disk_that_takes_nothing_is_an_outage(fake: FakeRegistry, tmp_path: Path) -> None:
    store = RegistryStore(access, tmp_path / "missing", lambda: NOW)
    with pytest.raises(Unavailable, match="disk does not take the layers") as caught:
        await store.squash(put(fake, BASE, ONE), FakeKeyring())
    assert caught.value.reason is Reason.DISK_FULL


async def test_who_is_cancelled_leaves_nothing_behind(
    fake: FakeRegistry, store: RegistryStore, tmp_path: Path
) -> None:
    sending, never = asyncio.Event(), asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        sending.set()
        await never.wait()
        return web.Response()

    fake.instead["PATCH /v2/a"] = hang
    task = asyncio.create_task(store.squash(put(fake, BASE, ONE), FakeKeyring()))
    await sending.wait()
    # Files without a name are there while they are open, and seen by nobody.
    assert list(tmp_path.iterdir()) == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    never.set()
    assert len(fake.manifests) == 1


# ── Names ──


@pytest.mark.row("seed-2")
async def test_a_name_is_added_and_moved_and_the_manifest_is_the_very_same(
    fake: FakeRegistry, store: RegistryStore
) -> None:
    name = Reference(fake.host, "a", "1")
    for layers in ((BASE, ONE), (BASE, TWO)):
        built = put(fake, *layers)
        pushed = await store.tag(built, name, FakeKeyring())
        assert pushed.reference == f"{fake.host}/a@{built.image_digest}"
        assert pushed.digest == built.image_digest
        assert fake.manifests["a", "1"] == fake.manifests["a", built.image_digest]
    # In its own repository there is nothing to copy.
    assert not [asked for asked in fake.asked if "/blobs/" in asked]


@pytest.mark.row("seed-2")
async def test_in_another_repository_blobs_are_mounted(
    fake: FakeRegistry, store: RegistryStore
) -> None:
    built = put(fake, BASE, ONE)
    fake.blobs["b", digest(pack(BASE))] = b"there already"
    await store.tag(built, Reference(fake.host, "b", "1"), FakeKeyring())
    assert fake.manifests["b", "1"] == fake.manifests["a", built.image_digest]
    assert len([asked for asked in fake.asked if asked.startswith("POST")]) == 2
    assert not [asked for asked in fake.asked if asked.startswith(("PATCH", "GET /v2/a/blobs"))]


@pytest.mark.row("seed-2")
async def test_in_another_registry_blobs_are_sent_as_who_we_are_there(
    fake: FakeRegistry, store: RegistryStore
) -> None:
    built = put(fake, BASE, ONE)
    async with serve(FakeRegistry(auth="basic")) as other:
        keyring = FakeKeyring()
        keyring.held[other.host] = Login(USER, PASSWORD)
        await store.tag(built, Reference(other.host, "b", "1"), keyring)
        assert other.manifests["b", "1"] == fake.manifests["a", built.image_digest]
        for (_, name), content in fake.blobs.items():
            assert other.blobs["b", name] == content
    assert {shown for _, _, shown in fake.seen} == {""}


async def test_an_index_is_copied_with_all_of_its_images(
    fake: FakeRegistry, store: RegistryStore
) -> None:
    parts = [put(fake, BASE, ONE), put(fake, BASE, TWO)]
    index = {"manifests": [{"digest": part.image_digest} for part in parts]}
    content = json.dumps(index).encode()
    fake.manifests["a", digest(content)] = (INDEXES[0], content)
    built = Built(digest(content), "", repository=f"{fake.host}/a")
    async with serve(FakeRegistry()) as other:
        await store.tag(built, Reference(other.host, "b", "1"), FakeKeyring())
        assert other.manifests["b", "1"] == (INDEXES[0], content)
        for part in parts:
            assert ("b", part.image_digest) in other.manifests
        assert {name for _, name in other.blobs} == {name for _, name in fake.blobs}


async def test_a_layer_that_its_maker_alone_may_give_away_is_not_copied(
    fake: FakeRegistry, store: RegistryStore
) -> None:
    theirs = {
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "digest": "x",
    }
    ours = {"mediaType": "layer/form", "digest": digest(pack(ONE)), "size": 1}
    built = put(fake, BASE, ONE, manifest={"layers": [theirs, ours]})
    await store.tag(built, Reference(fake.host, "b", "1"), FakeKeyring())
    assert ("b", digest(pack(ONE))) in fake.blobs


# ── What goes wrong ──


MEANINGS: list[tuple[RegistryError, type[Error], Reason]] = [
    (Unreachable("x"), Unavailable, Reason.REGISTRY_UNAVAILABLE),
    (TlsFailed("x"), Failed, Reason.TLS_FAILED),
    (Unauthorized("x"), Failed, Reason.PUSH_UNAUTHORIZED),
    (NotFound("x"), Failed, Reason.SOURCE_UNAVAILABLE),
    (Refused("x"), Failed, Reason.REGISTRY_UNAVAILABLE),
    (Corrupt("x"), Failed, Reason.REGISTRY_UNAVAILABLE),
]


@pytest.mark.parametrize(("error", "kind", "reason"), MEANINGS)
def test_every_error_has_a_meaning(
    error: RegistryError, kind: type[Error], reason: Reason
) -> None:
    found = translate(error)
    assert (type(found), found.reason) == (kind, reason)
    assert found.message.endswith(".")


def test_no_error_is_left_out() -> None:
    def below(kind: type[RegistryError]) -> set[type[RegistryError]]:
        return {kind}.union(*(below(one) for one in kind.__subclasses__()))

    assert below(RegistryError) - {RegistryError} == {type(error) for error, _, _ in MEANINGS}


Break = Callable[[FakeRegistry], None]


def breaking(start: str, handler: Callable[..., Any]) -> Break:
    def change(fake: FakeRegistry) -> None:
        fake.instead[start] = handler

    return change


BLOB = pack(ONE)
BREAKS: dict[str, tuple[Break, type[Error], Reason]] = {
    "an outage": (
        breaking("GET /v2/a/manifests", answers(503)),
        Unavailable,
        Reason.REGISTRY_UNAVAILABLE,
    ),
    "a layer that breaks off": (
        breaking(f"GET /v2/a/blobs/{digest(BLOB)}", breaks_off(BLOB[:50], len(BLOB))),
        Unavailable,
        Reason.REGISTRY_UNAVAILABLE,
    ),
    "a layer that is another": (
        breaking(f"GET /v2/a/blobs/{digest(BLOB)}", answers(200, pack(TWO))),
        Failed,
        Reason.REGISTRY_UNAVAILABLE,
    ),
    "who may not write": (
        breaking("POST /v2/a/blobs", answers(403)),
        Failed,
        Reason.PUSH_UNAUTHORIZED,
    ),
    "an upload that breaks off": (
        breaking("PATCH /v2/a/blobs", answers(502)),
        Unavailable,
        Reason.REGISTRY_UNAVAILABLE,
    ),
    "a manifest that it does not take": (
        breaking("PUT /v2/a/manifests", answers(400)),
        Failed,
        Reason.REGISTRY_UNAVAILABLE,
    ),
    "an image that is gone": (
        lambda fake: fake.manifests.clear(),
        Failed,
        Reason.SOURCE_UNAVAILABLE,
    ),
}


@pytest.mark.parametrize(("change", "kind", "reason"), BREAKS.values(), ids=BREAKS)
async def test_a_registry_may_break_the_squash_by(
    fake: FakeRegistry, store: RegistryStore, change: Break, kind: type[Error], reason: Reason
) -> None:
    built = put(fake, BASE, ONE)
    change(fake)
    with pytest.raises(Error) as caught:
        await store.squash(built, FakeKeyring())
    assert (type(caught.value), caught.value.reason) == (kind, reason)


async def test_a_source_that_breaks_off_is_not_blamed_on_the_target(
    fake: FakeRegistry, store: RegistryStore
) -> None:
    built = put(fake, BASE, ONE)
    fake.instead[f"GET /v2/a/blobs/{digest(BLOB)}"] = answers(200, pack(TWO))
    async with serve(FakeRegistry()) as other:
        with pytest.raises(Failed, match=f"{fake.host} sent another blob"):
            await store.tag(built, Reference(other.host, "b", "1"), FakeKeyring())
        assert ("b", "1") not in other.manifests
