"""A registry that behaves, and one that does not."""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import trustme
from aiohttp import web

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
    refusal,
)
from imagewright.clients.registry.registry import (
    IMAGES,
    INDEXES,
    MANIFEST_BYTES,
    Manifest,
    Registry,
)
from imagewright.clients.registry.tokens import TokenClient
from imagewright.clients.registry.transport import ERROR_BYTES, HUB_HOST, Transport
from tests.support.fake_registry import (
    PASSWORD,
    USER,
    FakeRegistry,
    answers,
    breaks_off,
    digest,
    serve,
)

MANIFEST = b'{"layers": []}'
BLOB = b"content " * 1000
NOW = [0.0]


def access(who: Credential | None = None, tls: ssl.SSLContext | None = None) -> Access:
    async def credentials(host: str) -> Credential | None:
        return who

    return Access(credentials, TokenClient(tls=tls), tls=tls, clock=lambda: NOW[0])


ME = Credential(USER, PASSWORD)


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    made = FakeRegistry()
    made.manifests["a", "1"] = (IMAGES[0], MANIFEST)
    made.blobs["a", digest(BLOB)] = BLOB
    async with serve(made):
        yield made


@pytest.fixture
async def registry(fake: FakeRegistry) -> AsyncIterator[Registry]:
    async with Registry(fake.host, access(ME)) as made:
        yield made


async def pieces(*parts: bytes) -> AsyncGenerator[bytes, None]:
    for part in parts:
        yield part


async def whole(registry: Registry, wanted: str = digest(BLOB)) -> bytes:
    return b"".join([piece async for piece in registry.blob("a", wanted)])


# ── What a registry is for ──


@pytest.mark.parametrize("form", IMAGES + INDEXES)
async def test_a_manifest_comes_with_its_digest_and_form(
    fake: FakeRegistry, registry: Registry, form: str
) -> None:
    for reference in ("1", digest(MANIFEST)):
        fake.manifests["a", reference] = (form, MANIFEST)
        found = await registry.manifest("a", reference)
        assert found == Manifest(digest(MANIFEST), form, MANIFEST)


async def test_a_manifest_is_put_as_it_is(fake: FakeRegistry, registry: Registry) -> None:
    content = b'{ "layers" :[] }\n'
    await registry.put_manifest("b/c", "2", Manifest(digest(content), IMAGES[1], content))
    assert fake.manifests["b/c", "2"] == (IMAGES[1], content)


async def test_a_blob_is_asked_for_read_and_mounted(
    fake: FakeRegistry, registry: Registry
) -> None:
    assert await registry.has_blob("a", digest(BLOB))
    assert not await registry.has_blob("b", digest(BLOB))
    assert await whole(registry) == BLOB
    assert await registry.mount("b", digest(BLOB), "a")
    assert fake.blobs["b", digest(BLOB)] == BLOB
    assert not await registry.mount("b", digest(b"another"), "a")


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_a_mount_that_is_refused_is_none(
    fake: FakeRegistry, registry: Registry, status: int
) -> None:
    fake.instead["POST /v2/b"] = answers(status)
    assert not await registry.mount("b", digest(BLOB), "a")


async def test_a_blob_is_sent_in_pieces_of_unknown_number(
    fake: FakeRegistry, registry: Registry
) -> None:
    await registry.upload("b", digest(b"one two"), pieces(b"one", b"", b" ", b"two"))
    assert fake.blobs["b", digest(b"one two")] == b"one two"
    assert [method for method, _, _ in fake.seen] == ["POST", "PATCH", "PUT"]
    # The registry's own state is sent back as it came.
    assert all("_state=x%2Fy%3D" in path for _, path, _ in fake.seen[1:])


async def test_a_small_blob_is_sent_at_once(fake: FakeRegistry, registry: Registry) -> None:
    await registry.upload_bytes("b", b"one")
    assert fake.blobs["b", digest(b"one")] == b"one"
    assert [method for method, _, _ in fake.seen] == ["POST", "PUT"]


# ── Who we are ──


async def test_a_password_is_shown_once_it_is_asked_for(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.auth = "basic"
    await registry.manifest("a", "1")
    await whole(registry)
    assert [bool(shown) for _, _, shown in fake.seen] == [False, True, True]


async def test_a_token_is_got_once_and_used_till_it_is_old(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.auth = "bearer"
    NOW[0] = 0
    await registry.manifest("a", "1")
    NOW[0] = 280
    await whole(registry)
    assert fake.tokens == 1
    NOW[0] = 291
    await registry.upload("a", digest(b"x"), pieces(b"x"))
    assert fake.tokens == 2
    assert fake.shown_for("PATCH") == ["Bearer t2"]


async def test_a_token_that_the_registry_takes_no_more_is_got_anew(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.auth = "bearer"
    await registry.manifest("a", "1")
    fake.tokens += 1
    await registry.manifest("a", "1")
    assert fake.shown_for("GET /v2/")[-1] == "Bearer t3"


async def test_nobody_gets_a_token_too(fake: FakeRegistry) -> None:
    fake.auth = "bearer"
    async with Registry(fake.host, access()) as registry:
        await registry.manifest("a", "1")
    assert fake.shown_for("GET /token") == [""]


REFUSING = {
    "a password where there is none": (401, 'Basic realm="x"', None, "there is none for it"),
    "a password where there is a token": (
        401,
        'Basic realm="x"',
        Credential("", "t"),
        "what is there is a token",
    ),
    "a wrong password": (401, 'Basic realm="x"', ME, "answered with 401"),
    "something that we do not know": (401, "Negotiate abc", ME, "not for Bearer or Basic"),
    "nothing that it names": (401, "", ME, "not for Bearer or Basic"),
    "a token of plain http elsewhere": (
        401,
        'Bearer realm="http://elsewhere.example/token"',
        ME,
        "plain http",
    ),
    "somebody else": (403, "", ME, "answered with 403"),
}


@pytest.mark.parametrize(("status", "challenge", "who", "text"), REFUSING.values(), ids=REFUSING)
async def test_a_registry_that_wants(
    fake: FakeRegistry, status: int, challenge: str, who: Credential | None, text: str
) -> None:
    fake.instead["GET /v2/"] = answers(status, b"", WWW_Authenticate=challenge)
    async with Registry(fake.host, access(who)) as registry:
        with pytest.raises(Unauthorized, match=text) as caught:
            await registry.manifest("a", "1")
    assert PASSWORD not in str(caught.value)


async def test_a_token_service_that_is_down_may_be_up_later(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.auth = "bearer"
    fake.instead["POST /token"] = answers(503)
    with pytest.raises(Unreachable, match="answered with status 503"):
        await registry.manifest("a", "1")


# ── Where it sends us ──


@pytest.mark.row("S17")
@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_storage_elsewhere_is_shown_nothing(
    fake: FakeRegistry, registry: Registry, auth: str
) -> None:
    fake.auth = auth
    async with serve(FakeRegistry()) as storage:
        storage.instead["GET /held"] = answers(body=BLOB)
        await registry.manifest("a", "1")
        fake.instead["GET /v2/a/blobs"] = answers(307, Location=f"{storage.url}/held?sig=%2F")
        assert await whole(registry) == BLOB
        assert storage.seen == [("GET", "/held?sig=%2F", "")]
    assert fake.seen[-1][2]


@pytest.mark.row("S17")
async def test_storage_that_asks_who_we_are_is_told_nothing(
    fake: FakeRegistry, registry: Registry
) -> None:
    async with serve(FakeRegistry(auth="basic")) as storage:
        storage.instead["GET /held"] = answers(401, WWW_Authenticate='Basic realm="x"')
        fake.instead["GET /v2/a/blobs"] = answers(307, Location=f"{storage.url}/held")
        with pytest.raises(Unauthorized):
            await whole(registry)
        assert storage.seen == [("GET", "/held", "")]


async def test_a_place_in_the_registry_itself_is_shown_who_we_are(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.auth = "basic"
    fake.instead["GET /v2/a/blobs"] = answers(302, Location="/v2/b/blobs/" + digest(BLOB))
    fake.blobs["b", digest(BLOB)] = BLOB
    await registry.manifest("a", "1")
    assert await whole(registry) == BLOB


async def test_an_upload_may_go_elsewhere_and_shows_nothing_there(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.auth = "basic"
    await registry.manifest("a", "1")
    async with serve(FakeRegistry()) as other:
        other.uploads["u"] = b""
        fake.instead["POST /v2/a"] = answers(202, Location=f"{other.url}/v2/a/blobs/uploads/u")
        await registry.upload("a", digest(b"x"), pieces(b"x"))
        assert {shown for _, _, shown in other.seen} == {""}
        assert other.blobs["a", digest(b"x")] == b"x"


NOWHERE = {
    "plain http elsewhere": ("http://elsewhere.example/x", "plain http"),
    "no place": ("", "does not say where"),
    "another scheme": ("file:///etc/passwd", "does not say where"),
    "no URL": ("http://[", "does not say where"),
}


@pytest.mark.parametrize(("place", "text"), NOWHERE.values(), ids=NOWHERE)
async def test_there_are_places_where_we_do_not_go(
    fake: FakeRegistry, registry: Registry, place: str, text: str
) -> None:
    fake.instead["GET /v2/a/blobs"] = fake.instead["POST /v2/a"] = answers(307, Location=place)
    with pytest.raises(Refused, match=text):
        await whole(registry)
    fake.instead["POST /v2/a"] = answers(202, Location=place)
    with pytest.raises(Refused, match=text):
        await registry.upload("a", digest(b"x"), pieces(b"x"))


async def test_a_circle_of_redirects_ends(fake: FakeRegistry, registry: Registry) -> None:
    fake.instead["GET /v2/a/blobs"] = answers(307, Location="/v2/a/blobs/again")
    with pytest.raises(Refused, match="redirects more than"):
        await whole(registry)


# ── What goes wrong ──


STATUSES: list[tuple[int, type[RegistryError]]] = [
    (400, Refused),
    (401, Unauthorized),
    (403, Unauthorized),
    (404, NotFound),
    (408, Unreachable),
    (413, Refused),
    (429, Unreachable),
    (500, Unreachable),
    (503, Unreachable),
]


@pytest.mark.parametrize(("status", "kind"), STATUSES)
async def test_every_status_has_a_meaning(
    fake: FakeRegistry, registry: Registry, status: int, kind: type[RegistryError]
) -> None:
    body = b'{"errors": [{"code": "DENIED", "message": "not today"}]}'
    fake.instead["PUT /v2/"] = answers(status, body, WWW_Authenticate='Basic realm="x"')
    with pytest.raises(RegistryError, match=f"answered with {status} DENIED: not today") as caught:
        await registry.put_manifest("a", "1", Manifest("", IMAGES[0], MANIFEST))
    assert type(caught.value) is kind


async def test_a_blob_that_breaks_off_is_an_outage(fake: FakeRegistry, registry: Registry) -> None:
    fake.instead["GET /v2/a/blobs"] = breaks_off(BLOB[: len(BLOB) // 2], len(BLOB))
    with pytest.raises(Unreachable):
        await whole(registry)


@pytest.mark.parametrize("sent", [b"", BLOB[:-1], BLOB + b"x", BLOB[1:]])
async def test_another_blob_is_no_blob(
    fake: FakeRegistry, registry: Registry, sent: bytes
) -> None:
    fake.blobs["a", digest(BLOB)] = sent
    with pytest.raises(Corrupt, match="another blob"):
        await whole(registry)


async def test_another_manifest_is_no_manifest(fake: FakeRegistry, registry: Registry) -> None:
    fake.manifests["a", digest(MANIFEST)] = (IMAGES[0], b"{}")
    with pytest.raises(Corrupt, match="another manifest"):
        await registry.manifest("a", digest(MANIFEST))


@pytest.mark.parametrize(
    "form", ["text/html", "application/vnd.docker.distribution.manifest.v1+json"]
)
async def test_a_form_that_is_that_of_no_image_is_refused(
    fake: FakeRegistry, registry: Registry, form: str
) -> None:
    fake.manifests["a", "1"] = (form, MANIFEST)
    with pytest.raises(Refused, match="that of no image"):
        await registry.manifest("a", "1")


@pytest.mark.parametrize(("status", "most"), [(200, MANIFEST_BYTES), (400, ERROR_BYTES)])
async def test_a_flood_is_not_read_to_its_end(
    fake: FakeRegistry, registry: Registry, status: int, most: int
) -> None:
    fake.instead["GET /v2/"] = answers(status, bytes(most + 1))
    with pytest.raises(Refused, match="where less is usual"):
        await registry.manifest("a", "1")


@pytest.mark.parametrize("wanted", ["sha256:../../b", "md5:" + "0" * 32, "sha256:" + "0" * 63])
async def test_what_is_no_digest_gets_into_no_path(
    fake: FakeRegistry, registry: Registry, wanted: str
) -> None:
    with pytest.raises(Refused, match="is no digest"):
        await registry.has_blob("a", wanted)
    assert fake.seen == []


async def test_nobody_listens(fake: FakeRegistry) -> None:
    async with Registry("127.0.0.1:1", access()) as registry:
        with pytest.raises(Unreachable, match=r"127.0.0.1:1 cannot be reached"):
            await registry.manifest("a", "1")


async def test_a_name_that_is_no_loopback_is_never_spoken_to_plainly(fake: FakeRegistry) -> None:
    host = fake.host.replace("127.0.0.1", "0.0.0.0")  # noqa: S104  # dialled, not listened on
    async with Registry(host, access()) as registry:
        with pytest.raises(Unreachable):
            await registry.manifest("a", "1")
    assert fake.seen == []
    async with Registry(host, replace(access(), plain=frozenset({host}))) as registry:
        assert (await registry.manifest("a", "1")).content == MANIFEST


def test_words_of_a_registry_are_bounded() -> None:
    long = json.dumps({"errors": [{"code": "X", "message": "y" * 5000}]}).encode()
    assert len(str(refusal(400, long, "PUT a"))) < 700
    assert len(str(refusal(400, b"z" * 5000, "PUT a"))) < 700


async def test_an_upload_that_is_not_what_was_said_is_refused(
    fake: FakeRegistry, registry: Registry
) -> None:
    with pytest.raises(Refused, match="DIGEST_INVALID"):
        await registry.upload("a", digest(b"y"), pieces(b"x"))


async def test_what_breaks_the_content_is_told_as_it_is(
    fake: FakeRegistry, registry: Registry
) -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"x"
        raise Corrupt("the source is damaged")

    with pytest.raises(Corrupt, match="the source is damaged"):
        await registry.upload("a", digest(b"x"), broken())


async def test_an_upload_that_is_refused_in_the_middle_ends_its_content(
    fake: FakeRegistry, registry: Registry
) -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield bytes(1 << 16)
        finally:
            ended.set()

    async def refuse(request: web.Request) -> web.Response:
        await request.content.readany()
        return web.Response(status=413)

    fake.instead["PATCH /v2/a"] = refuse
    with pytest.raises(RegistryError):
        await registry.upload("a", digest(b"x"), endless())
    async with asyncio.timeout(1):
        await ended.wait()


# ── TLS ──


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def served_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
async def over_tls(
    fake: FakeRegistry, served_tls: ssl.SSLContext, authority: trustme.CA
) -> AsyncIterator[tuple[FakeRegistry, Registry, Registry]]:
    """A registry with TLS, and it as who trusts its authority sees it, and who does not."""
    secure = FakeRegistry(blobs=fake.blobs, manifests=fake.manifests)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(serve(secure, served_tls))
        made = []
        for tls in (trusting, ssl.create_default_context()):
            way = replace(access(ME), authorities={secure.host: tls})
            made.append(await opened.enter_async_context(Registry(secure.host, way)))
        yield secure, made[0], made[1]


async def test_an_authority_of_ones_own_is_trusted(
    over_tls: tuple[FakeRegistry, Registry, Registry],
) -> None:
    _, trusting, strict = over_tls
    assert (await trusting.manifest("a", "1")).content == MANIFEST
    with pytest.raises(TlsFailed, match="certificate"):
        await strict.manifest("a", "1")


async def test_nothing_goes_from_https_to_http(
    fake: FakeRegistry, over_tls: tuple[FakeRegistry, Registry, Registry]
) -> None:
    secure, trusting, _ = over_tls
    elsewhere = fake.url.replace("127.0.0.1", "localhost")
    secure.instead["GET /v2/a/blobs"] = answers(307, Location=f"{elsewhere}/v2/a/blobs/x")
    with pytest.raises(Refused, match="plain http"):
        await whole(trusting)
    assert fake.seen == []


async def test_a_registry_that_takes_itself_for_plain_is_spoken_to_over_tls(
    over_tls: tuple[FakeRegistry, Registry, Registry],
) -> None:
    secure, trusting, _ = over_tls
    secure.uploads["u"] = b""
    place = "http://127.0.0.1/v2/a/blobs/uploads/u?_state=%2F"
    secure.instead["POST /v2/a"] = answers(202, Location=place)
    await trusting.upload("a", digest(b"x"), pieces(b"x"))
    assert secure.blobs["a", digest(b"x")] == b"x"
    assert "_state=%2F" in secure.asked[1]


SCHEMES = {
    "a host with a name": ("registry.example", "https://registry.example/v2/"),
    "loopback": ("127.0.0.1:5000", "http://127.0.0.1:5000/v2/"),
    "loopback by name": ("localhost:5000", "http://localhost:5000/v2/"),
    "loopback of IPv6": ("[::1]:5000", "http://[::1]:5000/v2/"),
    "a name that begins like loopback": ("localhost.example", "https://localhost.example/v2/"),
    "a host that is named as plain": ("plain.example:80", "http://plain.example/v2/"),
    "the same host with another port": ("plain.example", "https://plain.example/v2/"),
    "the hub": ("docker.io", f"https://{HUB_HOST}/v2/"),
}


@pytest.mark.parametrize(("host", "root"), SCHEMES.values(), ids=SCHEMES)
def test_who_is_spoken_to_without_tls(host: str, root: str) -> None:
    way = Access(access().credentials, TokenClient(), frozenset({"plain.example:80"}))
    assert str(Transport(host, way).root) == root


def test_what_is_shown_is_not() -> None:
    assert PASSWORD not in repr(ME)
