"""Images and artifacts as contexts, from a small registry of the test's own."""

import asyncio
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from imagewright.api.reason import Reason
from imagewright.caches.sources import Limits, SourceCache
from imagewright.clients.registry.access import Access
from imagewright.clients.registry.credential import anonymous
from imagewright.clients.registry.tokens import TokenClient
from imagewright.domain.credential import Login
from imagewright.domain.plan import Oci
from imagewright.ports import Failed, Rejected, Unavailable
from imagewright.sources.archive import Caps
from imagewright.sources.egress import Egress
from imagewright.sources.fetch import SourceFetcher
from imagewright.sources.oci import OciFetcher

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
FLUX = "application/vnd.cncf.flux.content.v1.tar+gzip"


class Nobody:
    """A keyring with nothing in it."""

    async def secret(self, name: str) -> Mapping[str, bytes]:
        return {}

    async def config(self, name: str) -> Mapping[str, bytes]:
        return {}

    async def login(self, host: str) -> Login | None:
        return None

    async def logins(self) -> Mapping[str, Login]:
        return {}

    def masks(self) -> frozenset[str]:
        return frozenset()


@dataclass
class Registry:
    """Manifests by tag and digest, blobs by digest."""

    host: str = ""
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    closed: bool = False

    async def serve(self, request: web.Request) -> web.Response:
        """A GET of the distribution API."""
        kind, reference = request.path.split("/")[-2:]
        self.asked.append(kind)
        if self.closed:
            return web.Response(status=403)
        if kind == "blobs" and reference in self.blobs:
            return web.Response(body=self.blobs[reference])
        if kind == "manifests" and reference in self.manifests:
            media_type, body = self.manifests[reference]
            return web.Response(body=body, headers={"Content-Type": media_type})
        return web.Response(status=404)

    def blob(self, *entries: tuple[str, str]) -> str:
        """A layer with these files; returns its digest."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, text in entries:
                member = tarfile.TarInfo(name)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        content = gzip.compress(buffer.getvalue())
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return digest

    def put(self, tag: str, media_type: str, body: dict[str, Any]) -> str:
        """Push a manifest; returns its digest."""
        content = json.dumps(body).encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.manifests[tag] = self.manifests[digest] = (media_type, content)
        return digest

    def image(self, tag: str, *layers: str, config: str = CONFIG, kind: str = LAYER) -> str:
        """Push an image of these layers."""
        parts = [{"mediaType": kind, "digest": layer} for layer in layers]
        return self.put(tag, MANIFEST, {"config": {"mediaType": config}, "layers": parts})


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    registry = Registry()
    app = web.Application()
    app.router.add_get("/{path:.*}", registry.serve)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    registry.host = f"127.0.0.1:{runner.addresses[0][1]}"
    yield registry
    await runner.cleanup()


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[SourceCache]:
    async with SourceCache(tmp_path / "cache", Limits()) as cache:
        yield cache


@pytest.fixture
async def oci() -> OciFetcher:
    access = Access(anonymous, TokenClient())
    return OciFetcher(lambda _: access, Egress(allow_loopback=True), architecture="amd64")


@pytest.fixture
def sources(cache: SourceCache, oci: OciFetcher) -> SourceFetcher:
    return SourceFetcher(cache, oci=oci)


async def files(sources: SourceFetcher, source: Oci) -> dict[str, str]:
    """All files of a source, by their paths."""
    async with sources.tree(source, Nobody()) as tree:
        return await asyncio.to_thread(_read, tree.path)


def _read(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in found}


async def test_an_images_layers_lie_over_one_another(
    sources: SourceFetcher, registry: Registry
) -> None:
    lower = registry.blob(("app/a", "1"), ("app/b", "1"), ("Dockerfile", "FROM scratch"))
    upper = registry.blob(("app/.wh.a", ""), ("app/b", "2"))
    digest = registry.image("1", lower, upper)
    source = Oci(f"{registry.host}/team/app:1")
    at = await sources.resolve(source, Nobody())
    assert at == replace(source, digest=digest)
    registry.image("1", lower)
    assert await files(sources, replace(source, digest=digest)) == {
        "app/b": "2",
        "Dockerfile": "FROM scratch",
    }


async def test_an_artifact_of_flux_is_one_archive(
    sources: SourceFetcher, registry: Registry
) -> None:
    config = "application/vnd.cncf.flux.config.v1+json"
    blob = registry.blob(("Dockerfile", "FROM scratch"), (".wh.kept", "x"))
    digest = registry.image("1", blob, config=config, kind=FLUX)
    async with sources.tree(Oci(f"{registry.host}/app:1"), Nobody()) as tree:
        assert tree.revision == digest
        assert _read(tree.path).keys() == {"Dockerfile", ".wh.kept"}


async def test_of_an_index_the_image_for_this_machine_is_taken(
    sources: SourceFetcher, registry: Registry
) -> None:
    ours = registry.image("ours", registry.blob(("a", "amd64")))
    other = registry.image("other", registry.blob(("a", "arm64")))
    parts = [
        {"digest": digest, "platform": {"os": "linux", "architecture": name}}
        for name, digest in (("arm64", other), ("amd64", ours))
    ]
    digest = registry.put("1", INDEX, {"manifests": parts})
    source = Oci(f"{registry.host}/app@{digest}")
    assert await files(sources, source) == {"a": "amd64"}
    registry.put("2", INDEX, {"manifests": [parts[0], parts[0]]})
    with pytest.raises(Failed, match="has no image for linux/amd64"):
        await files(sources, Oci(f"{registry.host}/app:2"))


@pytest.mark.row("seed-5")
async def test_layers_are_fetched_once_and_the_right_to_them_is_proven_each_time(
    sources: SourceFetcher, registry: Registry
) -> None:
    source = Oci(f"{registry.host}/app@{registry.image('1', registry.blob(('a', '1')))}")
    assert await files(sources, source) == await files(sources, source) == {"a": "1"}
    assert registry.asked == ["manifests", "blobs", "manifests"]
    registry.closed = True
    with pytest.raises(Rejected, match="may not be read") as caught:
        await files(sources, source)
    assert caught.value.reason == Reason.INVALID_CREDENTIALS


async def test_what_is_no_context_is_told(
    sources: SourceFetcher, registry: Registry, cache: SourceCache
) -> None:
    blob = registry.blob(("../a", "1"))
    registry.image("none")
    registry.image("text", blob, kind="text/plain")
    registry.image("two", blob, blob, config="application/json", kind=FLUX)
    registry.image("bad", "sha256:../../x")
    registry.image("out", blob)
    wrong = registry.blob(("a", "1"))
    registry.blobs[wrong] = b"another"
    registry.image("wrong", wrong)
    for tag, error, said in [
        ("absent", Failed, "is not there"),
        ("none", Failed, "holds no files"),
        ("text", Failed, "holds no files"),
        ("two", Failed, "holds no files"),
        ("bad", Failed, "a digest that is not sha256"),
        ("out", Failed, "outside of it"),
        ("wrong", Unavailable, "another blob"),
    ]:
        with pytest.raises(error, match=said):
            await files(sources, Oci(f"{registry.host}/app:{tag}"))
    assert await cache.usage() == 0


@pytest.mark.row("S8")
async def test_layers_meet_a_bound(
    cache: SourceCache, oci: OciFetcher, registry: Registry
) -> None:
    blob = registry.blob(("a", "1" * 9000))
    registry.image("1", blob, blob, blob)
    for caps, said in (
        (Caps(wire=200), "layers are larger"),
        (Caps(out=20_000), "unpacks to more"),
        (Caps(files=2), "more than 2 files"),
    ):
        bounded = SourceFetcher(cache, oci=replace(oci, caps=caps))
        with pytest.raises(Failed, match=said):
            await files(bounded, Oci(f"{registry.host}/app:1"))


@pytest.mark.row("S1")
@pytest.mark.parametrize("host", ["127.0.0.1:1", "169.254.169.254:80", "localhost:1"])
async def test_a_registry_inside_is_refused(
    cache: SourceCache, oci: OciFetcher, host: str
) -> None:
    guarded = SourceFetcher(cache, oci=replace(oci, egress=Egress()))
    with pytest.raises(Rejected, match="may not be fetched from"):
        await files(guarded, Oci(f"{host}/app"))
