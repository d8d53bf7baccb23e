"""Names: given one build at a time in an engine, and last everywhere."""

import asyncio
from typing import Any

import pytest

from imagewright.api.reason import Reason
from imagewright.clients.engine.errors import Refused, StreamError
from imagewright.domain.credential import Login
from imagewright.domain.outcome import Built
from imagewright.domain.reference import parse
from imagewright.images.engine import EngineStore
from imagewright.ports import Failed, Rejected
from tests.support.parts import FakeKeyring

NAME = parse("r.example/app:1")


class FakeEngine:
    """Notes what it is asked to do; a push waits for `go`."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None
        self.stands = ""
        self.logins: list[Any] = []

    async def tag(self, image: str, repository: str, tag: str) -> None:
        self.did.append(f"tag {image} {repository}:{tag}")
        self.stands = image

    async def push(self, repository: str, tag: str, auth: Any) -> str:
        self.logins.append(auth)
        await self.go.wait()
        if self.error:
            raise self.error
        return f"sha256:of-{self.stands}"

    async def remove(self, name: str) -> None:
        self.did.append(f"remove {name}")
        if self.error:
            raise self.error


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def store(engine: FakeEngine) -> EngineStore:
    return EngineStore(engine)  # type: ignore[arg-type]


@pytest.mark.row("seed-2")
async def test_a_name_is_given_and_pushed(engine: FakeEngine, store: EngineStore) -> None:
    pushed = await store.tag(Built(image_id="i"), NAME, FakeKeyring())
    assert engine.did == ["tag i r.example/app:1"]
    assert (pushed.digest, pushed.reference) == ("sha256:of-i", "r.example/app@sha256:of-i")


async def test_each_build_is_told_the_digest_of_its_own_image(
    engine: FakeEngine, store: EngineStore
) -> None:
    engine.go.clear()
    both = [
        asyncio.create_task(store.tag(Built(image_id=image), NAME, FakeKeyring()))
        for image in ("one", "two")
    ]
    await asyncio.sleep(0)
    engine.go.set()
    assert [(await one).digest for one in both] == ["sha256:of-one", "sha256:of-two"]


async def test_other_names_need_not_wait(engine: FakeEngine, store: EngineStore) -> None:
    engine.go.clear()
    first = asyncio.create_task(store.tag(Built(image_id="i"), NAME, FakeKeyring()))
    other = asyncio.create_task(store.tag(Built(image_id="j"), parse("b"), FakeKeyring()))
    while len(engine.logins) < 2:
        await asyncio.sleep(0)
    engine.go.set()
    await first
    await other


async def test_a_cancelled_push_leaves_no_name(engine: FakeEngine, store: EngineStore) -> None:
    engine.go.clear()
    pushing = asyncio.create_task(store.tag(Built(image_id="i"), NAME, FakeKeyring()))
    while not engine.logins:
        await asyncio.sleep(0)
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    assert engine.did[-1] == "remove r.example/app:1"
    engine.error = Refused("No such image", 404)
    again = asyncio.create_task(store.tag(Built(image_id="i"), NAME, FakeKeyring()))
    while len(engine.logins) < 2:
        await asyncio.sleep(0)
    again.cancel()
    with pytest.raises(asyncio.CancelledError):
        await again


async def test_a_push_shows_the_login_of_its_own_registry(
    engine: FakeEngine, store: EngineStore
) -> None:
    keyring = FakeKeyring()
    keyring.held = {"r.example": Login("me", "x"), "other.example": Login("me", "y")}
    await store.tag(Built(image_id="i"), NAME, keyring)
    await store.tag(Built(image_id="i"), parse("third.example/a"), keyring)
    assert [login and (login.username, login.password) for login in engine.logins] == [
        ("me", "x"),
        None,
    ]


async def test_a_refused_push_says_what_was_pushed(engine: FakeEngine, store: EngineStore) -> None:
    engine.error = StreamError("unauthorized: authentication required")
    with pytest.raises(Failed, match=r"r\.example/app:1") as caught:
        await store.tag(Built(image_id="i"), NAME, FakeKeyring())
    assert caught.value.reason is Reason.PUSH_UNAUTHORIZED


async def test_an_engines_store_squashes_nothing(store: EngineStore) -> None:
    with pytest.raises(Rejected):
        await store.squash(Built(image_id="i"), FakeKeyring())
