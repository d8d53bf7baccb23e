"""What a plan names in the cluster, looked for before it is built."""

import pytest

from imagewright.api.reason import Reason
from imagewright.dependencies import gather
from imagewright.domain.plan import Config, Git, Grant, Inline, Plan, Value
from imagewright.ports import Missing, Rejected
from tests.support.parts import FakeKeyring


@pytest.fixture
def keyring() -> FakeKeyring:
    return FakeKeyring()


async def test_values_are_read_and_become_build_arguments(keyring: FakeKeyring) -> None:
    keyring.configs["settings"] = {"b": b"two"}
    plan = Plan(Inline(), build_args={"A": "1"}, values={"B": Value("settings", "b")})
    found = await gather(plan, keyring)
    assert (found.build_args, found.values) == ({"A": "1", "B": "two"}, {})


@pytest.mark.row("seed-20")
async def test_a_config_map_becomes_the_files_of_the_context(keyring: FakeKeyring) -> None:
    keyring.configs["files"] = {"Dockerfile": b"FROM scratch\n"}
    found = await gather(Plan(Config("files")), keyring)
    assert found.source == Inline({"Dockerfile": b"FROM scratch\n"})


MISSING: dict[str, tuple[Plan, str]] = {
    "a mounted secret": (
        Plan(Inline(), secrets=(Grant("npm", "nowhere", "token"),)),
        "nowhere",
    ),
    "an entry of a mounted secret": (
        Plan(Inline(), secrets=(Grant("npm", "there", "other"),)),
        "no key other",
    ),
    "a mounted key": (Plan(Inline(), ssh=(Grant("default", "nowhere", "key"),)), "nowhere"),
    "what opens the source": (Plan(Git("https://g.example/a", secret="nowhere")), "nowhere"),
    "files": (Plan(Config("nowhere")), "nowhere"),
    "a value": (Plan(Inline(), values={"A": Value("nowhere", "a")}), "nowhere"),
    "an entry of a ConfigMap": (Plan(Inline(), values={"A": Value("there", "b")}), "no key b"),
}


@pytest.mark.parametrize(("plan", "named"), MISSING.values(), ids=MISSING)
async def test_what_is_not_there_is_said_by_its_name(
    plan: Plan, named: str, keyring: FakeKeyring
) -> None:
    keyring.secrets["there"] = {"token": b"x"}
    keyring.configs["there"] = {"a": b"x"}
    with pytest.raises(Missing, match=named) as caught:
        await gather(plan, keyring)
    assert caught.value.reason is Reason.SECRET_NOT_FOUND


async def test_logins_are_looked_at_before_anything_is_built(keyring: FakeKeyring) -> None:
    keyring.error = Rejected("The Secret pull holds none.", Reason.INVALID_CREDENTIALS)
    with pytest.raises(Rejected, match="pull holds none"):
        await gather(Plan(Inline()), keyring)


async def test_a_value_that_is_no_text_is_refused(keyring: FakeKeyring) -> None:
    keyring.configs["c"] = {"b": b"\xff"}
    with pytest.raises(Rejected, match="no text"):
        await gather(Plan(Inline(), values={"B": Value("c", "b")}), keyring)
