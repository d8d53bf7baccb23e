"""The Helm chart: what it renders, what it refuses, and that a real API server takes it."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from imagewright.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "imagewright"
CRDS = ("imagewright.dev_buildcacheprunes.yaml", "imagewright.dev_imagebuilds.yaml")
NAMESPACE = "chart-test"
WATCHED = ("chart-team-a", "chart-team-b")
LEASE = "imagewright-lease"
DIGEST = "sha256:" + "a" * 64
SERVICE = {"name": "bk", "namespace": "ci"}
EMPTY: Mapping[str, str] = {}
SCALED = {"statefulSet": "bk", "max": 2}
EVERYTHING: dict[str, Any] = {
    "image": {"digest": DIGEST},
    "imagePullSecrets": [{"name": "pull"}],
    "watchNamespaces": list(WATCHED),
    "pools": [
        {
            "name": "default",
            "workers": ["tcp://10.0.0.1:1234", "unix:///run/buildkit/buildkitd.sock"],
            "tls": {"secretName": "workers", "serverName": "buildkitd"},
            "slots": 2,
            "platforms": ["linux/amd64"],
            "networks": ["default"],
            "namespaces": list(WATCHED),
            "namespaceSlots": 3,
        },
        {"name": "engines", "kind": "docker", "workers": ["tcp://10.0.0.2:2376"]},
        {
            "name": "scaled",
            "service": {"name": "bk", "namespace": WATCHED[0], "port": "1234"},
            "autoscale": {"statefulSet": "bk", "min": 1, "max": 3, "idleSeconds": 60},
        },
    ],
    "gateway": {
        "enabled": True,
        "secretName": "gateway-tls",
        "port": 2345,
        "waiting": 10,
        "waitingPerTenant": 2,
        "waitSeconds": 60,
        "idleSeconds": 120,
        "service": {"type": "LoadBalancer", "annotations": {"example.test/door": "front"}},
    },
    "serviceAccount": {"annotations": {"example.test/role": "builder"}},
    "metrics": {"service": {"annotations": {"example.test/scrape": "true"}}},
    "podAnnotations": {"example.test/note": "one"},
    "podLabels": {"example.test/team": "two"},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "builds", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 1,
                    "preference": {
                        "matchExpressions": [{"key": "example.test/builds", "operator": "Exists"}]
                    },
                }
            ]
        }
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "imagewright"}},
        }
    ],
    "extraEnv": [{"name": "IMAGEWRIGHT_LOG_LEVEL", "value": "debug"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
}


def one_pool(**keys: Any) -> dict[str, Any]:
    """Values with one pool."""
    workers = ["tcp://buildkitd.imagewright-system.svc:1234"]
    return {"pools": [{"name": "default", "workers": workers, **keys}]}


def service_pool(service: Mapping[str, str] = EMPTY, autoscale: Any = None) -> dict[str, Any]:
    """Values with one pool, whose workers are behind a Service."""
    more = {"autoscale": autoscale} if autoscale else {}
    return {"pools": [{"name": "default", "service": dict(service), **more}]}


class Servers(Protocol):
    """What these tests ask of the stack."""

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""

    @property
    def binaries(self) -> Mapping[str, Path]:
        """Programs by name."""


Documents = list[dict[str, Any]]


class Chart:
    """The chart, as helm and a real API server see it."""

    def __init__(self, stack: Servers, folder: Path) -> None:
        self._stack = stack
        self._values = folder / "values.yaml"

    def helm(self, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """`helm template` with `values` over the chart's own."""
        self._values.write_text(yaml.safe_dump(values))
        arguments = ["template", "imagewright", str(CHART), "--namespace", NAMESPACE]
        return self._run("helm", *arguments, "--values", str(self._values))

    def render(self, values: dict[str, Any] | None = None) -> str:
        """The manifests as text."""
        answer = self.helm(values or {})
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def documents(self, values: dict[str, Any] | None = None) -> Documents:
        """The manifests as objects."""
        return [one for one in yaml.safe_load_all(self.render(values)) if one]

    def notes(self, values: dict[str, Any]) -> str:
        """What `helm install` says at its end."""
        self._values.write_text(yaml.safe_dump(values))
        arguments = ["install", "imagewright", str(CHART), "--namespace", NAMESPACE]
        more = ["--dry-run=client", "--hide-secret", "--values", str(self._values)]
        answer = self._run("helm", *arguments, *more)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.rpartition("NOTES:")[2]

    def lint(self) -> subprocess.CompletedProcess[str]:
        """`helm lint`, in which warnings are errors."""
        return self._run("helm", "lint", "--strict", str(CHART))

    def kubectl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """kubectl as the administrator of the stack's cluster."""
        kubeconfig = str(self._stack.kubeconfig)
        return self._run("kubectl", "--kubeconfig", kubeconfig, *arguments, stdin=stdin)

    def _run(
        self, program: str, *arguments: str, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        command = [str(self._stack.binaries[program]), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


@pytest.fixture
def chart(stack: Servers, tmp_path: Path) -> Chart:
    return Chart(stack, tmp_path)


def of_kind(documents: Documents, kind: str) -> Documents:
    return [one for one in documents if one["kind"] == kind]


def only(documents: Documents, kind: str) -> dict[str, Any]:
    (one,) = of_kind(documents, kind)
    return one


def pod_of(documents: Documents) -> dict[str, Any]:
    template: dict[str, Any] = only(documents, "Deployment")["spec"]["template"]
    return template


def container_of(documents: Documents) -> dict[str, Any]:
    (container,) = pod_of(documents)["spec"]["containers"]
    found: dict[str, Any] = container
    return found


def checksum(documents: Documents) -> str:
    return str(pod_of(documents)["metadata"]["annotations"]["checksum/config"])


def about_builds(documents: Documents) -> Documents:
    """Without the rights that are there always: to the Lease, and to tell of prunes."""
    return [
        one
        for one in documents
        if one["metadata"]["name"] != LEASE and one["metadata"].get("namespace") != "default"
    ]


def role_of(documents: Documents) -> dict[str, Any]:
    (role,) = (
        one
        for one in of_kind(documents, "ClusterRole")
        if one["metadata"]["name"] == "imagewright"
    )
    return role


def test_the_chart_passes_helms_own_check(chart: Chart) -> None:
    answer = chart.lint()
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({}, id="default values"),
        pytest.param({"watchNamespaces": list(WATCHED)}, id="two namespaces"),
        pytest.param(EVERYTHING, id="every value set"),
        pytest.param(service_pool({"name": "bk"}, SCALED), id="a Service"),
    ],
)
def test_a_real_api_server_takes_what_is_rendered(chart: Chart, values: dict[str, Any]) -> None:
    for namespace in (NAMESPACE, *WATCHED):
        chart.kubectl("create", "namespace", namespace)
    answer = chart.kubectl("apply", "--dry-run=server", "-f", "-", stdin=chart.render(values))
    assert answer.returncode == 0, answer.stderr
    assert "unknown field" not in answer.stderr


@pytest.mark.parametrize(
    ("values", "named"),
    [
        pytest.param(one_pool(slots="four"), "/pools/0/slots", id="a word for a number"),
        pytest.param(one_pool(slots=0), "/pools/0/slots", id="no slot at all"),
        pytest.param(one_pool(slotz=4), "slotz", id="a key misspelt"),
        pytest.param({"replica": 2}, "replica", id="a key that is not there"),
        pytest.param({"replicas": -1}, "/replicas", id="no number of operators"),
        pytest.param({"leaseSeconds": 1}, "/leaseSeconds", id="a lease that is over at once"),
        pytest.param(
            {"replicas": 2, "gateway": {"enabled": True, "secretName": "s"}},
            "replicas must be 1",
            id="two gateways",
        ),
        pytest.param({"pools": []}, "/pools", id="no pool"),
        pytest.param(one_pool(workers=["10.0.0.1:1"]), "/pools/0/workers/0", id="no scheme"),
        pytest.param(one_pool(workers=[]), "/pools/0/workers", id="no address"),
        pytest.param({"pools": [{"name": "a"}]}, "pool a needs either", id="no workers"),
        pytest.param(one_pool(service={"name": "bk"}), "default needs either", id="both kinds"),
        pytest.param(service_pool(), "service", id="a Service without a name"),
        pytest.param(one_pool(autoscale=SCALED), "needs its service", id="no Service"),
        pytest.param(
            service_pool(SERVICE, {**SCALED, "max": 0}), "/autoscale/max", id="no worker at all"
        ),
        pytest.param(
            service_pool(SERVICE, {**SCALED, "min": 3}), "autoscale.min", id="bounds the wrong way"
        ),
        pytest.param({"image": {"digest": "abc"}}, "/image/digest", id="no digest"),
        pytest.param({"image": {"tag": "a:b"}}, "/image/tag", id="no tag"),
        pytest.param({"logFormat": "xml"}, "/logFormat", id="an unknown format"),
        pytest.param({"ops": {"port": 70000}}, "/ops/port", id="no port"),
        pytest.param({"watchNamespaces": ["Team_A"]}, "/watchNamespaces/0", id="no namespace"),
        pytest.param({"crds": {"install": "yes please"}}, "/crds/install", id="no truth"),
        pytest.param({"extraEnv": [{"value": "1"}]}, "/extraEnv/0", id="a variable with no name"),
        pytest.param({"tolerations": [{"keys": "x"}]}, "/tolerations/0", id="a toleration's key"),
        pytest.param(
            {"drainSeconds": 50}, "terminationGracePeriodSeconds", id="killed while it drains"
        ),
        pytest.param({"gateway": {"enabled": True}}, "gateway.secretName", id="no certificate"),
        pytest.param({"gateway": {"waiting": -1}}, "/gateway/waiting", id="no number of clients"),
        pytest.param(
            {"serviceAccount": {"create": False}}, "serviceAccount.name", id="no account named"
        ),
        pytest.param(
            {"metrics": {"service": {"create": False}, "serviceMonitor": {"create": True}}},
            "metrics.service.create",
            id="nothing to scrape",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(
    chart: Chart, values: dict[str, Any], named: str
) -> None:
    answer = chart.helm(values)
    assert answer.returncode != 0
    assert named in answer.stderr


def test_every_value_says_what_it_is_for() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    keys = [at for at, line in enumerate(lines) if line.lstrip()[:1].isalpha() and ":" in line]
    groups = [at for at in keys if lines[at].endswith(":")]
    bare = [lines[at] for at in keys if at not in groups and "#" not in lines[at - 1]]
    assert not bare
    assert len(keys) > len(groups)


def test_the_pod_can_do_no_more_than_it_must(chart: Chart) -> None:
    documents = chart.documents()
    pod, container = pod_of(documents)["spec"], container_of(documents)
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all("hostPath" not in volume for volume in pod["volumes"])


def test_a_namespace_that_enforces_the_restricted_standard_takes_the_pod(chart: Chart) -> None:
    namespace = "chart-restricted"
    chart.kubectl("create", "namespace", namespace)
    label = "pod-security.kubernetes.io/warn=restricted"
    chart.kubectl("label", "namespace", namespace, label)
    deployment = only(chart.documents(), "Deployment")
    deployment["metadata"]["namespace"] = namespace
    answer = chart.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.dump(deployment))
    assert answer.returncode == 0, answer.stderr
    assert "PodSecurity" not in answer.stderr


def test_the_operators_role_holds_what_it_needs_and_nothing_else(chart: Chart) -> None:
    group = ["imagewright.dev"]
    assert role_of(chart.documents())["rules"] == [
        {
            "apiGroups": group,
            "resources": ["imagebuilds"],
            "verbs": ["get", "list", "watch", "delete"],
        },
        {"apiGroups": group, "resources": ["imagebuilds/status"], "verbs": ["get", "patch"]},
        {
            "apiGroups": [""],
            "resources": ["secrets", "configmaps", "serviceaccounts"],
            "verbs": ["get"],
        },
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
    ]


def test_without_named_namespaces_the_role_is_bound_in_the_whole_cluster(chart: Chart) -> None:
    documents = chart.documents()
    bindings = of_kind(documents, "ClusterRoleBinding")
    assert [one["roleRef"]["name"] for one in bindings] == ["imagewright", "imagewright-prunes"]
    for binding in bindings:
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": "imagewright", "namespace": NAMESPACE}
        ]
    assert not of_kind(about_builds(documents), "RoleBinding")


def test_with_named_namespaces_the_role_is_bound_in_these_only(chart: Chart) -> None:
    documents = chart.documents({"watchNamespaces": list(WATCHED)})
    # Prunes are in no namespace, so their role is the one that is bound in the whole cluster.
    assert only(documents, "ClusterRoleBinding")["roleRef"]["name"] == "imagewright-prunes"
    bindings = of_kind(about_builds(documents), "RoleBinding")
    assert tuple(one["metadata"]["namespace"] for one in bindings) == WATCHED
    for binding in bindings:
        assert binding["roleRef"]["kind"] == "ClusterRole"
        assert binding["subjects"][0]["namespace"] == NAMESPACE


def test_the_rights_for_prunes_come_with_their_service_and_go_with_it(chart: Chart) -> None:
    roles = {one["metadata"]["name"]: one for one in of_kind(chart.documents(), "ClusterRole")}
    assert [rule["resources"] for rule in roles["imagewright-prunes"]["rules"]] == [
        ["buildcacheprunes"],
        ["buildcacheprunes/status"],
    ]
    assert [rule["verbs"] for rule in roles["imagewright-prunes"]["rules"]] == [
        ["get", "list", "watch", "delete"],
        ["get", "patch"],
    ]
    told = [one for one in chart.documents() if one["metadata"].get("namespace") == "default"]
    assert only(told, "Role")["rules"] == [
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]}
    ]
    assert only(told, "RoleBinding")["roleRef"]["name"] == "imagewright-prunes"
    without = chart.documents({"prunes": False, "watchNamespaces": list(WATCHED)})
    assert not of_kind(without, "ClusterRoleBinding")
    assert not [one for one in without if one["metadata"].get("namespace") == "default"]
    assert "imagewright-prunes" not in {
        one["metadata"]["name"] for one in of_kind(without, "ClusterRole")
    }


WATCHERS = {
    "podMonitor": {"create": True, "labels": {"release": "prometheus"}, "interval": "15s"},
    "prometheusRule": {"create": True, "labels": {"release": "prometheus"}},
    "dashboard": {"create": True},
}


def test_what_prometheus_and_grafana_pick_up_is_made_where_it_is_asked_for(chart: Chart) -> None:
    plain = {one["kind"] for one in chart.documents()}
    assert not plain & {"PodMonitor", "PrometheusRule"}
    documents = chart.documents({"metrics": WATCHERS})
    monitor = only(documents, "PodMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["podMetricsEndpoints"] == [
        {"port": "ops", "path": "/metrics", "interval": "15s"}
    ]
    (group,) = only(documents, "PrometheusRule")["spec"]["groups"]
    assert "{{ $labels.pool }}" in str(group["rules"])
    (board,) = (
        one for one in of_kind(documents, "ConfigMap") if "imagewright.json" in one["data"]
    )
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(board["data"]["imagewright.json"])["title"] == "imagewright"


def test_a_drain_leaves_one_of_several_replicas_and_is_not_held_up_by_a_single_one(
    chart: Chart,
) -> None:
    assert not of_kind(chart.documents(), "PodDisruptionBudget")
    two = only(chart.documents({"replicas": 2}), "PodDisruptionBudget")
    assert two["spec"]["minAvailable"] == 1
    labels = pod_of(chart.documents({"replicas": 2}))["metadata"]["labels"]
    assert two["spec"]["selector"]["matchLabels"].items() <= labels.items()
    without = {"replicas": 2, "podDisruptionBudget": {"create": False}}
    assert not of_kind(chart.documents(without), "PodDisruptionBudget")


def test_the_one_lease_is_all_that_its_role_lets_touch(chart: Chart) -> None:
    documents = [one for one in chart.documents() if one["metadata"]["name"] == LEASE]
    role, binding = only(documents, "Role"), only(documents, "RoleBinding")
    group = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    assert role["rules"] == [
        {**group, "resourceNames": ["imagewright"], "verbs": ["get", "patch"]},
        {**group, "verbs": ["create"]},
    ]
    for one in (role, binding):
        assert one["metadata"]["namespace"] == NAMESPACE
    assert binding["roleRef"]["name"] == LEASE
    config = yaml.safe_load(only(chart.documents(), "ConfigMap")["data"]["config.yaml"])
    assert config["lease"] == {"name": "imagewright", "namespace": NAMESPACE, "seconds": 12}


def test_rights_about_workers_are_of_their_namespace_and_as_few_as_their_pool_needs(
    chart: Chart,
) -> None:
    assert not of_kind(about_builds(chart.documents()), "Role")
    found = about_builds(chart.documents(service_pool(SERVICE)))
    follow = {
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["list", "watch"],
    }
    assert only(found, "Role")["rules"] == [follow]
    scaled = about_builds(chart.documents(service_pool(SERVICE, SCALED)))
    role, binding = only(scaled, "Role"), only(scaled, "RoleBinding")
    assert role["rules"] == [
        follow,
        {
            "apiGroups": ["apps"],
            "resources": ["statefulsets/scale"],
            "resourceNames": ["bk"],
            "verbs": ["get", "patch"],
        },
        {
            "apiGroups": [""],
            "resources": ["pods"],
            "resourceNames": ["bk-0", "bk-1"],
            "verbs": ["patch"],
        },
    ]
    for one in (role, binding):
        assert one["metadata"]["namespace"] == "ci"
        assert one["metadata"]["name"] == binding["roleRef"]["name"] == "imagewright-pool-default"
    assert binding["subjects"][0]["namespace"] == NAMESPACE
    without = {**service_pool(SERVICE, SCALED), "rbac": {"create": False}}
    assert not of_kind(chart.documents(without), "Role")


def test_workers_of_a_service_stand_in_the_configuration_instead_of_addresses(
    chart: Chart,
) -> None:
    documents = chart.documents(service_pool({"name": "bk"}, SCALED))
    config = yaml.safe_load(only(documents, "ConfigMap")["data"]["config.yaml"])
    service = {"name": "bk", "namespace": NAMESPACE, "port": "buildkit"}
    assert config["pools"] == [{"name": "default", "service": service, "autoscale": SCALED}]


def test_people_get_no_right_to_write_a_status(chart: Chart) -> None:
    roles = {one["metadata"]["name"]: one for one in of_kind(chart.documents(), "ClusterRole")}
    view, edit = roles["imagewright-view"], roles["imagewright-edit"]
    aggregate = "rbac.authorization.k8s.io/aggregate-to-"
    assert view["metadata"]["labels"][f"{aggregate}view"] == "true"
    assert view["rules"][0]["verbs"] == ["get", "list", "watch"]
    for role in ("edit", "admin"):
        assert edit["metadata"]["labels"][f"{aggregate}{role}"] == "true"
    assert f"{aggregate}view" not in edit["metadata"]["labels"]
    assert [rule["resources"] for rule in edit["rules"]] == [["imagebuilds"]]


@pytest.mark.parametrize("crd", CRDS)
def test_the_charts_crd_is_the_generated_one(crd: str) -> None:
    assert (CHART / "files" / "crds" / crd).read_bytes() == (ROOT / "crds" / crd).read_bytes()


@pytest.mark.parametrize("crd", CRDS)
def test_the_crd_is_rendered_as_generated_and_kept(chart: Chart, crd: str) -> None:
    generated = yaml.safe_load((CHART / "files" / "crds" / crd).read_text())
    (rendered,) = [
        one
        for one in of_kind(chart.documents(), "CustomResourceDefinition")
        if one["metadata"]["name"] == generated["metadata"]["name"]
    ]
    assert rendered["spec"] == generated["spec"]
    assert rendered["metadata"]["name"] == generated["metadata"]["name"]
    assert rendered["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_crd_is_left_out_where_somebody_else_installs_it(chart: Chart) -> None:
    documents = chart.documents({"crds": {"install": False}})
    assert not of_kind(documents, "CustomResourceDefinition")


def test_a_changed_configuration_starts_a_new_pod_and_other_changes_do_not(chart: Chart) -> None:
    before = checksum(chart.documents())
    assert checksum(chart.documents(one_pool(slots=8))) != before
    assert checksum(chart.documents({"watchNamespaces": list(WATCHED)})) != before
    assert checksum(chart.documents({"rbac": {"aggregate": False}})) == before


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default values", "every value set"])
def test_the_operator_reads_the_charts_configuration(
    chart: Chart, values: dict[str, Any], tmp_path: Path
) -> None:
    documents = chart.documents(values)
    path = tmp_path / "config.yaml"
    path.write_text(only(documents, "ConfigMap")["data"]["config.yaml"])
    settings = load_settings(path)
    assert settings.namespaces == values.get("watchNamespaces", [])
    assert settings.prunes
    assert settings.ops.host == "0.0.0.0"  # noqa: S104 - the kubelet asks from outside the Pod
    given = values.get("pools", one_pool()["pools"])
    assert [pool.workers for pool in settings.pools] == [pool.get("workers", []) for pool in given]
    assert [pool.service is not None for pool in settings.pools] == [
        "service" in pool for pool in given
    ]
    assert [pool.tls is not None for pool in settings.pools] == ["tls" in pool for pool in given]
    assert [pool.namespace_slots for pool in settings.pools] == [
        pool.get("namespaceSlots") for pool in given
    ]


def blocks(kind: str) -> list[str]:
    """The YAML that the users' page on pools shows of this kind."""
    page = (ROOT / "docs" / "pools.md").read_text()
    return re.findall(rf"^```yaml\n# {kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_the_users_page_shows_values_and_objects_that_are_taken(
    chart: Chart, tmp_path: Path
) -> None:
    path, seen = tmp_path / "config.yaml", []
    for text in blocks("values"):
        documents = chart.documents(yaml.safe_load(text))
        path.write_text(only(documents, "ConfigMap")["data"]["config.yaml"])
        seen += [pool.name for pool in load_settings(path).pools]
    assert seen == ["default", "arm", "engines", "default"]
    chart.kubectl("create", "namespace", "ci")
    found = [one for text in blocks("objects") for one in yaml.safe_load_all(text)]
    for one in found:
        # The kinds of others are not served here.
        if not one["apiVersion"].startswith("keda.sh/"):
            text = yaml.safe_dump(one)
            answer = chart.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text)
            assert answer.returncode == 0, answer.stderr
    assert {one["kind"] for one in found} == {"Service", "StatefulSet", "ScaledObject"}


def test_the_notes_say_where_each_pools_workers_are(chart: Chart) -> None:
    said = chart.notes(EVERYTHING)
    for line in (
        "Workers of pool default: tcp://10.0.0.1:1234, unix:///run/buildkit/buildkitd.sock",
        f"Workers of pool scaled: the Pods of Service bk in {WATCHED[0]}, from 1 to 3 of",
    ):
        assert line in said


def test_a_new_operator_stands_by_before_the_old_one_ends_but_where_there_is_a_gateway(
    chart: Chart,
) -> None:
    spec = only(chart.documents({"replicas": 2}), "Deployment")["spec"]
    rolling = {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}
    spec = only(chart.documents(EVERYTHING), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_operator_runs_with_the_configuration_mounted(chart: Chart) -> None:
    documents = chart.documents()
    container, spec = container_of(documents), only(documents, "Deployment")["spec"]
    assert container["args"] == ["run", "--config", "/etc/imagewright/config.yaml"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "ops"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "ops"}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/etc/imagewright/config.yaml"]["readOnly"]
    assert "/tmp" in mounts  # noqa: S108 - the folder of a container
    assert spec["template"]["spec"]["enableServiceLinks"] is False


def test_the_gateway_is_there_only_where_it_is_asked_for(chart: Chart) -> None:
    documents = chart.documents(EVERYTHING)
    config = yaml.safe_load(only(documents, "ConfigMap")["data"]["config.yaml"])["gateway"]
    (service,) = [
        one
        for one in of_kind(documents, "Service")
        if one["metadata"]["name"] == "imagewright-gateway"
    ]
    assert service["spec"]["type"] == "LoadBalancer"
    assert [port["port"] for port in service["spec"]["ports"]] == [config["port"]] == [2345]
    container = container_of(documents)
    assert {port["name"]: port["containerPort"] for port in container["ports"]}["gateway"] == 2345
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    folders = {str(Path(config[name]).parent) for name in ("ca", "cert", "key")}
    volumes = {one["name"]: one for one in pod_of(documents)["spec"]["volumes"]}
    assert volumes[mounts[folders.pop()]]["secret"]["secretName"] == "gateway-tls"
    assert not folders
    assert (config["waiting"], config["waitingPerTenant"]) == (10, 2)

    closed = chart.documents()
    assert "gateway" not in only(closed, "ConfigMap")["data"]["config.yaml"]
    assert [port["name"] for port in container_of(closed)["ports"]] == ["ops"]
    assert len(of_kind(documents, "Service")) == len(of_kind(closed, "Service")) + 1


def test_the_workers_certificates_are_mounted_where_the_configuration_says(chart: Chart) -> None:
    documents = chart.documents(one_pool(tls={"secretName": "workers"}))
    config = yaml.safe_load(only(documents, "ConfigMap")["data"]["config.yaml"])
    folders = {str(Path(config["pools"][0]["tls"][name]).parent) for name in ("ca", "cert", "key")}
    mounts = {one["mountPath"]: one["name"] for one in container_of(documents)["volumeMounts"]}
    assert {mounts[folder] for folder in folders} == {"tls-default"}
    (volume,) = (
        one for one in pod_of(documents)["spec"]["volumes"] if one["name"] == "tls-default"
    )
    assert volume["secret"]["secretName"] == "workers"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param({}, ":0.1.0", id="the chart's appVersion"),
        pytest.param({"tag": "1.2"}, ":1.2", id="a tag"),
        pytest.param({"tag": "1.2", "digest": DIGEST}, f"@{DIGEST}", id="a digest wins"),
    ],
)
def test_the_image_is_the_one_that_the_values_name(
    chart: Chart, image: dict[str, str], expected: str
) -> None:
    container = container_of(chart.documents({"image": image}))
    assert container["image"] == f"registry.example/imagewright{expected}"


def test_metrics_have_a_service_and_a_monitor_only_on_request(chart: Chart) -> None:
    documents = chart.documents()
    (port,) = only(documents, "Service")["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == ("metrics", "ops")
    assert not of_kind(documents, "ServiceMonitor")
    asked = chart.documents({"metrics": {"serviceMonitor": {"create": True}}})
    selector = only(asked, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= only(asked, "Service")["metadata"]["labels"].items()
    assert selector.items() <= pod_of(asked)["metadata"]["labels"].items()


def test_every_object_carries_the_standard_labels(chart: Chart) -> None:
    for document in chart.documents():
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "imagewright"
        assert labels["app.kubernetes.io/instance"] == "imagewright"
        assert labels["app.kubernetes.io/version"] == "0.1.0"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
