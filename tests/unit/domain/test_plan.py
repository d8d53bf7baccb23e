"""Inputs: every field of a spec either starts a new run or does not, and the plan has it."""

from typing import Any

import pytest

from imagewright.api.imagebuild import ImageBuildSpec
from imagewright.domain.plan import (
    Access,
    CacheExport,
    Form,
    Git,
    Grant,
    Http,
    Inline,
    Ulimit,
    Value,
)
from imagewright.domain.planning import OPERATIONAL, inputs_digest, make_plan, ticket_of
from imagewright.domain.quantity import bytes_of
from imagewright.domain.support import unsupported
from tests.support.makers import GIT, INLINE, a_build

CHANGES: dict[str, Any] = {
    "source": {"inline": {"files": {"Dockerfile": "FROM scratch\nLABEL other=yes\n"}}},
    "contextDir": "sub",
    "dockerfile": "docker/Dockerfile",
    "dockerfileInline": "FROM scratch\n",
    "target": "t",
    "pool": "gpu",
    "builder": "classic",
    "buildArgs": [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "b"}}},
    ],
    "images": ["r.example/a:1"],
    "labels": {"a": "1"},
    "annotations": {"a": "1"},
    "platforms": ["linux/arm64"],
    "pull": True,
    "secrets": [{"id": "npm", "secretRef": {"name": "npm", "key": "token"}}],
    "ssh": [{"id": "default", "secretRef": {"name": "deploy", "key": "ssh-privatekey"}}],
    "registryAuth": [{"secretRef": {"name": "pull"}}],
    "serviceAccountName": "builder",
    "cache": {
        "noCache": True,
        "from": [{"ref": "r.example/cache"}],
        "to": [{"type": "registry", "ref": "r.example/cache", "mode": "max"}, {"type": "inline"}],
    },
    "squash": True,
    "network": "none",
    "extraHosts": [{"hostname": "db", "ip": "10.0.0.7"}],
    "shmSize": "64Mi",
    "ulimits": [{"name": "nofile", "soft": 1024, "hard": 2048}],
    "limits": {"memory": "1Gi", "memorySwap": "2G", "cpuShares": 512, "cpusetCpus": "0-1"},
    "attestations": {"provenance": "min"},
    "output": {"compression": "zstd", "sourceDateEpoch": 0},
    "activeDeadlineSeconds": 5,
    "backoffLimit": 5,
    "ttlSecondsAfterFinished": 5,
    "priority": 5,
    "suspend": True,
    "cancel": True,
    "rebuildToken": "again",
}


def spec(**fields: Any) -> ImageBuildSpec:
    """A spec of inline files with these fields."""
    return ImageBuildSpec.model_validate({**INLINE, **fields})


def test_the_table_of_changes_has_every_field_of_a_spec() -> None:
    fields = {field.alias for field in ImageBuildSpec.model_fields.values()}
    assert set(CHANGES) == fields
    assert fields > OPERATIONAL


@pytest.mark.parametrize(("field", "value"), CHANGES.items(), ids=CHANGES)
def test_a_field_starts_a_new_run_unless_it_is_operational(field: str, value: Any) -> None:
    changed = inputs_digest(spec(**{field: value})) != inputs_digest(spec())
    assert changed is (field not in OPERATIONAL)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"labels": {"a": "1", "b": "2"}}, {"labels": {"b": "2", "a": "1"}}, True),
        ({"cache": {}}, {"cache": {"noCache": False}}, True),
        ({"buildArgs": []}, {}, True),
        ({"images": ["a:1", "b:1"]}, {"images": ["b:1", "a:1"]}, False),
        ({"rebuildToken": "1"}, {"rebuildToken": "2"}, False),
        ({"labels": {"a": "b"}}, {"annotations": {"a": "b"}}, False),
        ({"cache": {"key": "a"}}, {}, True),
        ({"pool": "default"}, {}, True),
        ({"pool": "other"}, {}, False),
    ],
    ids=[
        "the order of labels does not count",
        "a default inside an object is as none",
        "an empty list is as none",
        "the order of names counts",
        "any change of the token counts",
        "a value counts by its place",
        "where it is built does not count",
        "the default pool is as none",
        "another pool may build otherwise",
    ],
)
def test_equal_inputs_have_equal_digests(
    one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    assert (inputs_digest(spec(**one)) == inputs_digest(spec(**other))) is same


def test_every_option_of_the_spec_is_in_the_plan() -> None:
    plan = make_plan(spec(**CHANGES | INLINE | {"dockerfile": "Dockerfile"}))
    assert isinstance(plan.source, Inline)
    assert (plan.context_dir, plan.dockerfile_inline) == ("sub", "FROM scratch\n")
    assert (plan.target, plan.build_args, plan.images) == ("t", {"A": "1"}, ("r.example/a:1",))
    assert (plan.labels, plan.annotations) == ({"a": "1"}, {"a": "1"})
    assert (plan.platforms, plan.sandbox.network) == (("linux/arm64",), "none")
    assert (plan.pull, plan.no_cache, plan.squash) == (True, True, True)
    assert (plan.builder, plan.values) == ("classic", {"B": Value("settings", "b")})
    assert plan.secrets == (Grant("npm", "npm", "token"),)
    assert plan.ssh == (Grant("default", "deploy", "ssh-privatekey"),)
    assert plan.access == Access(("pull",), "builder")
    assert plan.cache_from == ("r.example/cache",)
    assert plan.cache_to == (CacheExport("r.example/cache", "max"), CacheExport("", "min"))
    assert plan.form == Form("zstd", 0, provenance="min")


def test_sizes_are_bytes_and_limits_have_the_names_of_the_engine() -> None:
    sandbox = make_plan(spec(**CHANGES | INLINE | {"dockerfile": "Dockerfile"})).sandbox
    assert sandbox.shm_size == 64 << 20
    assert sandbox.extra_hosts == (("db", "10.0.0.7"),)
    assert sandbox.ulimits == (Ulimit("nofile", 1024, 2048),)
    assert sandbox.limits == {
        "memory": 1 << 30,
        "memswap": 2 * 10**9,
        "cpushares": 512,
        "cpusetcpus": "0-1",
    }


NEEDS: dict[str, tuple[dict[str, Any], bool]] = {
    "inline files need nothing": ({}, False),
    "a value that is written needs nothing": ({"buildArgs": [{"name": "A"}]}, False),
    "a value of a ConfigMap": ({"buildArgs": CHANGES["buildArgs"]}, True),
    "files of a ConfigMap": ({"source": {"configMap": {"name": "files"}}}, True),
    "a mounted secret": ({"secrets": CHANGES["secrets"]}, True),
    "a mounted key": ({"ssh": CHANGES["ssh"]}, True),
    "a login": ({"registryAuth": CHANGES["registryAuth"]}, True),
    "a service account": ({"serviceAccountName": "builder"}, True),
    "a private repository": (
        {"source": {"git": {"url": "https://g.example/a", "secretRef": {"name": "s"}}}},
        True,
    ),
    "a public repository needs nothing": (GIT, False),
    "a private download": (
        {"source": {"http": {"url": "https://a.example/c", "secretRef": {"name": "s"}}}},
        True,
    ),
    "a private image": (
        {"source": {"oci": {"image": "r.example/a", "secretRef": {"name": "s"}}}},
        True,
    ),
}


@pytest.mark.parametrize(("fields", "needs"), NEEDS.values(), ids=NEEDS)
def test_what_a_plan_needs_of_the_cluster_is_known(fields: dict[str, Any], needs: bool) -> None:
    assert make_plan(spec(**fields)).needs is needs


UNSUPPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "classic mounts no secrets": (
        {"builder": "classic", "secrets": CHANGES["secrets"]},
        "spec.secrets",
    ),
    "classic mounts no keys": ({"builder": "classic", "ssh": CHANGES["ssh"]}, "spec.ssh"),
    "classic writes no annotations": (
        {"builder": "classic", "annotations": {"a": "1"}},
        "spec.annotations",
    ),
    "classic exports no cache": (
        {"builder": "classic", "cache": CHANGES["cache"]},
        "spec.cache.to",
    ),
    "classic has one form": (
        {"builder": "classic", "output": {"compression": "zstd"}},
        "spec.output",
    ),
    "classic attests nothing": (
        {"builder": "classic", "attestations": {"sbom": True}},
        "spec.attestations",
    ),
    "classic builds for one platform": (
        {"builder": "classic", "platforms": ["linux/amd64", "linux/arm64"]},
        "spec.platforms",
    ),
    "BuildKit limits nothing": ({"limits": {"memory": "1Gi"}}, "spec.limits"),
    "BuildKit squashes one platform": (
        {"squash": True, "images": ["a"], "platforms": ["linux/amd64", "linux/arm64"]},
        "spec.platforms",
    ),
    "BuildKit squashes nothing that is attested": (
        {"squash": True, "images": ["a"], "attestations": {"provenance": "min"}},
        "spec.attestations",
    ),
    "BuildKit squashes into gzip": (
        {"squash": True, "images": ["a"], "output": {"compression": "estargz"}},
        "spec.output.compression",
    ),
    "BuildKit squashes in a repository": ({"squash": True}, "spec.images"),
}


@pytest.mark.parametrize(("fields", "named"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_what_a_builder_would_leave_out_is_refused_by_its_name(
    fields: dict[str, Any], named: str
) -> None:
    told = unsupported(make_plan(spec(**fields)))
    assert named in told
    assert told.endswith(".")


@pytest.mark.parametrize(
    "fields",
    [{}, {"squash": True, "images": ["a"]}, {"builder": "classic", "limits": CHANGES["limits"]}],
    ids=["nothing special", "squash with a name", "limits of a classic build"],
)
def test_what_a_builder_can_do_is_not_refused(fields: dict[str, Any]) -> None:
    assert unsupported(make_plan(spec(**fields))) == ""


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("64Mi", 64 << 20),
        ("10Gi", 10 << 30),
        ("5k", 5000),
        ("1E", 10**18),
    ],
)
def test_a_size_is_bytes(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "1.5Gi", "-1", "1 Gi", "1gi", "Gi", "1Ki\n"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        bytes_of(text)


@pytest.mark.row("seed-20")
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"git": {"url": "https://g.example/a"}}, Git("https://g.example/a")),
        (
            {"git": {"url": "https://g.example/a", "revision": "v1", "submodules": True}},
            Git("https://g.example/a", "v1", submodules=True),
        ),
        (
            {"http": {"url": "https://a.example/c.tar", "sha256": "a" * 64}},
            Http("https://a.example/c.tar", "a" * 64),
        ),
    ],
    ids=["a repository", "a repository at a tag, with submodules", "a download"],
)
def test_a_source_is_carried_over_whole(source: dict[str, Any], expected: Git | Http) -> None:
    assert make_plan(spec(source=source)).source == expected


@pytest.mark.parametrize("written", ["sub/", "sub"])
def test_a_folder_has_one_spelling(written: str) -> None:
    assert make_plan(spec(contextDir=written)).context_dir == "sub"


def test_a_retry_fetches_the_commit_itself_and_remembers_the_repository() -> None:
    plan = make_plan(spec(**GIT))
    again = plan.at("c" * 40)
    assert again.source == Git("https://git.example/app", ref="c" * 40, commit="c" * 40)
    assert plan.at("") is plan


TICKETS = {
    "of a build with names: the first one's repository": (
        {"images": ["r.example/team/app:1", "r.example/other:1"]},
        "r.example/team/app",
    ),
    "of a name on the hub: in full": ({"images": ["app"]}, "docker.io/library/app"),
    "of a build without a name: its own": ({}, "team/one"),
    "of a build that names a key": ({"images": ["app"], "cache": {"key": "mine"}}, "mine"),
}


@pytest.mark.parametrize(("spec", "key"), TICKETS.values(), ids=TICKETS)
def test_the_key_of_a_build(spec: dict[str, Any], key: str) -> None:
    build = a_build({**spec, "priority": -3})
    ticket = ticket_of(build)
    assert ticket.key == key
    assert (ticket.uid, ticket.namespace, ticket.priority) == (
        build.metadata.uid,
        build.metadata.namespace,
        -3,
    )
