"""What an attempt may read: its own namespace, as it was when it was read first."""

import asyncio
import base64
import json
from typing import Any

import pytest

from imagewright.api.reason import Reason
from imagewright.domain.credential import Login
from imagewright.domain.plan import Access, Inline, Oci, Plan
from imagewright.kube.keyring import NamespaceKeyring
from imagewright.kube.lookout import Lookout
from imagewright.ports import Gone, Missing, Rejected


class Objects:
    """An API server that has these objects, and notes what was asked for."""

    def __init__(self) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.lookout = Lookout(self.version, every=0.001, at_most=1000)

    async def get(self, path: str) -> dict[str, Any]:
        self.asked.append(path)
        if path not in self.bodies:
            raise Gone(path)
        return {"metadata": {"resourceVersion": "1"}, **self.bodies[path]}

    async def version(self, path: str) -> str:
        """As the KubeClient says it."""
        return "1" if path in self.bodies else ""

    def secret(self, name: str, **entries: bytes) -> None:
        """Put a Secret into the namespace."""
        data = {key: base64.b64encode(value).decode() for key, value in entries.items()}
        self.bodies[f"/api/v1/namespaces/team/secrets/{name}"] = {"data": data}

    def logins(self, name: str, **passwords: str) -> None:
        """Put a Secret with registry logins into the namespace."""
        auths = {
            host: {"username": "me", "password": password} for host, password in passwords.items()
        }
        content = json.dumps({"auths": auths}).encode()
        self.secret(name, **{".dockerconfigjson": content})

    def keyring(self, **access: Any) -> NamespaceKeyring:
        """The keyring of a build with these credentials."""
        plan = Plan(Inline(), access=Access(**access))
        return self.keyring_of(plan)

    def keyring_of(self, plan: Plan) -> NamespaceKeyring:
        """The keyring of a build of this plan."""
        return NamespaceKeyring(self, "team", plan, self.lookout)


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.mark.row("F41")
async def test_a_keyring_keeps_what_it_has_read_and_the_next_one_reads_anew(
    objects: Objects,
) -> None:
    objects.secret("s", token=b"first")
    keyring = objects.keyring()
    assert await keyring.secret("s") == {"token": b"first"}
    objects.secret("s", token=b"second")
    assert await keyring.secret("s") == {"token": b"first"}
    assert await objects.keyring().secret("s") == {"token": b"second"}
    objects.bodies.clear()
    assert await keyring.secret("s") == {"token": b"first"}
    assert len(objects.asked) == 2


async def test_what_was_not_there_is_looked_for_again(objects: Objects) -> None:
    keyring = objects.keyring()
    with pytest.raises(Missing):
        await keyring.secret("s")
    objects.secret("s", token=b"x")
    assert await keyring.secret("s") == {"token": b"x"}


@pytest.mark.row("S16")
async def test_nothing_is_read_outside_of_the_namespace(objects: Objects) -> None:
    objects.secret("s", token=b"x")
    await objects.keyring().secret("s")
    assert objects.asked == ["/api/v1/namespaces/team/secrets/s"]


async def test_what_is_not_there_is_waited_for(objects: Objects) -> None:
    with pytest.raises(Missing, match="Secret s is not in namespace team yet") as caught:
        await objects.keyring().secret("s")
    assert caught.value.reason is Reason.SECRET_NOT_FOUND
    with pytest.raises(Missing, match="ServiceAccount builder"):
        await objects.keyring(service_account="builder").logins()


async def test_the_first_login_for_a_registry_counts_and_the_accounts_come_last(
    objects: Objects,
) -> None:
    objects.logins("one", **{"a.example": "from-one"})
    objects.logins("two", **{"a.example": "from-two", "b.example": "from-two"})
    objects.logins("pull", **{"b.example": "from-pull", "c.example": "from-pull"})
    objects.bodies["/api/v1/namespaces/team/serviceaccounts/builder"] = {
        "imagePullSecrets": [{"name": "pull"}]
    }
    keyring = objects.keyring(logins=("one", "two"), service_account="builder")
    found = {host: await keyring.login(f"{host}.example") for host in "abc"}
    assert found == {
        "a": Login("me", "from-one"),
        "b": Login("me", "from-two"),
        "c": Login("me", "from-pull"),
    }
    assert await keyring.login("d.example") is None


@pytest.mark.row("S17")
@pytest.mark.parametrize(
    "host", ["a.example.evil", "evil.a.example", "a.example:443", "example", "A.example.evil"]
)
async def test_a_login_is_for_one_host_only(objects: Objects, host: str) -> None:
    objects.logins("one", **{"a.example": "secret"})
    keyring = objects.keyring(logins=("one",))
    assert await keyring.login(host) is None
    assert await keyring.login("a.example") == Login("me", "secret")


async def test_the_source_has_a_login_of_its_own(objects: Objects) -> None:
    objects.logins("source", **{"a.example": "secret"})
    plan = Plan(Oci("a.example/files", secret="source"))
    assert await objects.keyring_of(plan).login("a.example")


@pytest.mark.row("F42")
async def test_a_secret_that_cannot_be_read_is_named_and_not_shown(objects: Objects) -> None:
    objects.secret("bad", **{".dockerconfigjson": b"{canary"})
    with pytest.raises(Rejected, match="The Secret bad holds no registry logins") as caught:
        await objects.keyring(logins=("bad",)).logins()
    assert caught.value.reason is Reason.INVALID_CREDENTIALS
    assert "canary" not in caught.value.message


async def test_a_config_map_has_texts_and_bytes(objects: Objects) -> None:
    objects.bodies["/api/v1/namespaces/team/configmaps/c"] = {
        "data": {"Dockerfile": "FROM scratch\n"},
        "binaryData": {"blob": base64.b64encode(b"\0\1").decode()},
    }
    assert await objects.keyring().config("c") == {
        "Dockerfile": b"FROM scratch\n",
        "blob": b"\0\1",
    }


async def test_what_was_read_is_kept_out_of_what_is_shown(objects: Objects) -> None:
    pem = b"-----BEGIN-----\nabcdefgh\n-----END-----\n"
    objects.secret("s", key=pem, pin=b"1234", username=b"github")
    objects.logins("one", **{"a.example": "hunter22"})
    keyring = objects.keyring(logins=("one",))
    assert keyring.masks() == frozenset()
    await keyring.secret("s")
    await keyring.logins()
    assert {"abcdefgh", "hunter22"} <= keyring.masks()
    assert not {"1234", "github"} & keyring.masks()


async def test_an_empty_secret_holds_nothing(objects: Objects) -> None:
    objects.bodies["/api/v1/namespaces/team/secrets/s"] = {}
    assert await objects.keyring().secret("s") == {}


@pytest.mark.row("F40")
async def test_all_that_was_read_is_looked_out_for_what_was_missing_as_well(
    objects: Objects,
) -> None:
    objects.secret("there", token=b"x")
    keyring = objects.keyring()
    await keyring.secret("there")
    with pytest.raises(Missing):
        await keyring.secret("s")
    told = asyncio.Event()
    keyring.watch(told.set)
    looking = asyncio.create_task(objects.lookout.run())
    assert len(objects.lookout) == 2
    objects.secret("s", token=b"x")
    async with asyncio.timeout(1.5):
        await told.wait()
    looking.cancel()
