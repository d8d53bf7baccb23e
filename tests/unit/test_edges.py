"""Settings, and what answers of the API server mean."""

from pathlib import Path

import pytest

from imagewright.kube.client import translate
from imagewright.ports import Conflict, Rejected, Unavailable
from imagewright.settings import SettingsError, load_settings

SERVICE = "service: {name: bk, namespace: ci}"
SCALED = "autoscale: {statefulSet: bk, max: 2}"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Rejected),
        (401, Unavailable),
        (403, Unavailable),
        (404, Unavailable),
        (409, Conflict),
        (410, Rejected),
        (422, Rejected),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
def test_every_class_of_answer_has_a_meaning(status: int, kind: type[Exception]) -> None:
    for content in (b'{"message": "why"}', b"<html>", b"[]", b""):
        error = translate(status, "GET /x", content)
        assert type(error) is kind
        assert str(status) in error.message


def test_settings_come_from_the_file_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("pools: [{slots: 2, workers: ['tcp://b:1']}]\ndrainSeconds: 3\n")
    monkeypatch.setenv("IMAGEWRIGHT_OPS__PORT", "9090")
    settings = load_settings(path)
    assert (settings.ops.port, settings.drain_seconds) == (9090, 3)
    assert (settings.pools[0].name, settings.pools[0].workers) == ("default", ["tcp://b:1"])
    monkeypatch.setenv("IMAGEWRIGHT_POOLS", '[{"name": "other", "workers": ["tcp://c:1"]}]')
    assert [pool.name for pool in load_settings(path).pools] == ["other"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\npol: {}\n", "line 2: pol: Extra inputs are not permitted"),
        (
            "pools:\n- workers: ['tcp://b:1']\n  slots: 0\n",
            "line 3: pools.0.slots: Input should be greater than or equal to 1",
        ),
        ("drainSeconds: 3\npools:\n- {}\n", "line 3: pools.0: Value error, name its workers"),
        (
            "pools:\n- workers: [a]\n- workers: [b]\n",
            "line 1: pools: Value error, two pools are named default: give each a name of its own",
        ),
        (
            "pools:\n- workers: [a]\n  service: {name: bk, namespace: ci}\n",
            "line 2: pools.0: Value error, name its workers, by addresses or by their service",
        ),
        (
            "pools:\n- service:\n    name: bk\n",
            "line 2: pools.0.service.namespace: Field required",
        ),
        (
            "pools:\n- workers: [a]\n  autoscale: {statefulSet: bk, max: 2}\n",
            "line 2: pools.0: Value error, autoscale needs the service that the new workers",
        ),
        (
            "pools:\n- service: {name: bk, namespace: ci}\n  autoscale:\n    max: 0\n",
            "line 4: pools.0.autoscale.max: Input should be greater than or equal to 1",
        ),
        (
            f"pools:\n- {SERVICE}\n  autoscale: {{statefulSet: bk, min: 3, max: 2}}\n",
            "line 3: pools.0.autoscale: Value error, min is 3 and max 2: write a max that is not",
        ),
        (
            f"pools:\n- {SERVICE}\n  {SCALED}\n- name: two\n  {SERVICE}\n  {SCALED}\n",
            "line 1: pools: Value error, two pools scale the StatefulSet ci/bk: leave it to one",
        ),
        (
            "pools:\n- workers: [a]\n  tls:\n    cert: /x\n",
            "line 3: pools.0.tls.ca: Field required",
        ),
        (
            "pools:\n- workers: [a]\n- workers: [b]\n  name: Two\n",
            "line 4: pools.1.name: String should match pattern",
        ),
        (
            "drainSeconds: 3\ngateway: {ca: /c, cert: /c, key: /k, pool: other}\n",
            (
                "line 2: gateway: Value error, pool other is no pool of BuildKit daemons only, "
                "and others have no use for a gateway; name one of these: default, or leave "
                "gateway out"
            ),
        ),
        (
            "pools:\n- workers: ['docker+tcp://b:1']\ngateway: {ca: /c, cert: /c, key: /k}\n",
            (
                "line 3: gateway: Value error, pool default is no pool of BuildKit daemons only, "
                "and others have no use for a gateway; there is none: add one, or leave gateway "
                "out"
            ),
        ),
        ("gateway: {ca: /c, cert: /c}\n", "line 1: gateway.key: Field required"),
        ("lease: {name: a}\n", "line 1: lease.namespace: Field required"),
        ("lease: {namespace: a, seconds: 1}\n", "line 1: lease.seconds: Input should be greater"),
        ("pools: [\n", "is no YAML"),
        ("- a\n", "must hold keys and values"),
    ],
)
def test_wrong_settings_are_named_by_their_key(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_pool_may_be_the_pods_of_a_service_with_their_port_by_name_or_number(
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"pools:\n- {SERVICE}\n  {SCALED}\n")
    (pool,) = load_settings(path).pools
    assert pool.service is not None
    assert pool.autoscale is not None
    assert (pool.workers, pool.service.port) == ([], "buildkit")
    assert (pool.autoscale.min, pool.autoscale.idle_seconds) == (0, 600)
    path.write_text("pools:\n- service: {name: bk, namespace: ci, port: 1234}\n")
    (pool,) = load_settings(path).pools
    assert pool.service is not None
    assert pool.service.port == "1234"
    assert pool.autoscale is None


def test_a_settings_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "nope.yaml")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("IMAGEWRIGHT_DRAIN_SECONDS", "many", "drain_seconds"),
        ("IMAGEWRIGHT_POOLS", "many", "pools"),
        ("IMAGEWRIGHT_LOG_LEVEL", "loud", "log_level"),
        ("IMAGEWRIGHT_OPS__PORT", "70000", "ops.port"),
    ],
    ids=["a word for a number", "a word for a list", "an unknown level", "a port that is none"],
)
def test_a_wrong_variable_of_the_environment_is_named_by_its_key(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings(None)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("the environment: ")


def test_without_a_file_and_with_an_empty_one_the_settings_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("")
    assert load_settings(path) == load_settings(None)
    assert load_settings(None).pools[0].workers == ["unix:///run/buildkit/buildkitd.sock"]
