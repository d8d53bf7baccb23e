"""Workers as the cluster knows them: a Service, its slices, a StatefulSet and its Pods.

Nothing in the stack makes or unmakes them, so a test does.
"""

import json
import time
from typing import Any

import pytest
import yaml

import devstack
from devstack.identity import ACCOUNT, CHART, NAMESPACE, run
from tests.support.stack import Kubectl

NAME, PORT, PORT_NUMBER = "bk", "buildkit", 1234
GRANTED_SECONDS = 10.0
LABELS = {"app": NAME}
CONTAINER = {"name": "buildkitd", "image": "registry.example/buildkit"}


class WorkerPods:
    """The Service and StatefulSet `bk` of a namespace."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl, self.namespace = kubectl, namespace

    def make(self) -> None:
        """Make the Service, the StatefulSet with no replicas, and the account of its Pods."""
        ports = [{"name": PORT, "port": 1234}]
        service = {"clusterIP": "None", "selector": LABELS, "ports": ports}
        template = {"metadata": {"labels": LABELS}, "spec": {"containers": [CONTAINER]}}
        spec = {
            "serviceName": NAME,
            "replicas": 0,
            "selector": {"matchLabels": LABELS},
            "template": template,
        }
        self._apply("v1", "ServiceAccount", "default", {})
        self._apply("v1", "Service", NAME, {"spec": service})
        self._apply("apps/v1", "StatefulSet", NAME, {"spec": spec})

    def make_pod(self, ordinal: int) -> None:
        """Make a Pod that no node runs."""
        body = {"spec": {"containers": [CONTAINER]}}
        self._apply("v1", "Pod", f"{NAME}-{ordinal}", body)

    def remove_pod(self, ordinal: int) -> None:
        """Delete the Pod."""
        self._kubectl("delete", "pod", f"{NAME}-{ordinal}")

    def tell(
        self, name: str, conditions: dict[int, dict[str, Any]], address: str = "10.0.0.{}"
    ) -> None:
        """Write an EndpointSlice of the Pods with these numbers, each with its conditions."""
        entries = [
            {
                "addresses": [address.format(ordinal)],
                "conditions": told,
                "targetRef": {"kind": "Pod", "name": f"{NAME}-{ordinal}"},
            }
            for ordinal, told in conditions.items()
        ]
        ports = [{"name": PORT, "port": PORT_NUMBER}]
        body = {"addressType": "IPv4", "ports": ports, "endpoints": entries}
        self._apply("discovery.k8s.io/v1", "EndpointSlice", name, body)

    def untell(self, name: str) -> None:
        """Delete an EndpointSlice."""
        self._kubectl("delete", "endpointslice", name)

    def scale(self, replicas: int) -> None:
        """Ask for so many, as a person does."""
        self._kubectl("scale", f"statefulset/{NAME}", f"--replicas={replicas}")

    @property
    def replicas(self) -> int:
        """How many are asked for."""
        return int(self._kubectl("get", "statefulset", NAME, "-o", "jsonpath={.spec.replicas}"))

    def annotations(self, ordinal: int) -> dict[str, str]:
        """What is written on a Pod."""
        pod = json.loads(self._kubectl("get", "pod", f"{NAME}-{ordinal}", "-o", "json"))
        found: dict[str, str] = pod["metadata"].get("annotations", {})
        return found

    def _apply(self, version: str, kind: str, name: str, body: dict[str, Any]) -> None:
        labels = {"kubernetes.io/service-name": NAME} if kind == "EndpointSlice" else LABELS
        metadata = {"name": name, "namespace": self.namespace, "labels": labels}
        full = {"apiVersion": version, "kind": kind, "metadata": metadata, **body}
        self._kubectl("apply", "--server-side", "-f", "-", text=json.dumps(full))


@pytest.fixture
def worker_pods(kubectl: "Kubectl", namespace: str) -> WorkerPods:
    """A Service and a StatefulSet without replicas, in the test's namespace."""
    pods = WorkerPods(kubectl, namespace)
    pods.make()
    return pods


@pytest.fixture
def worker_rights(stack: devstack.Stack, namespace: str, kubectl: Kubectl) -> None:
    """The operator has what the chart grants it for these workers, of which three may be."""
    service = {"name": NAME, "namespace": namespace}
    scaled = {"statefulSet": NAME, "max": 3}
    pools = [{"name": "default", "service": service, "autoscale": scaled}]
    command = [str(stack.binaries["helm"]), "template", ACCOUNT, str(CHART)]
    values = f"--set-json=pools={json.dumps(pools)}"
    text = run([*command, f"--namespace={NAMESPACE}", values])
    kinds = ("Role", "RoleBinding")
    # Those of the release's own namespace are not about workers.
    rights = [
        one
        for one in yaml.safe_load_all(text)
        if one and one["kind"] in kinds and one["metadata"]["namespace"] == namespace
    ]
    kubectl("apply", "-f", "-", text=yaml.safe_dump_all(rights))
    # The API server learns of a role a moment after it was written.
    asked = ("auth", "can-i", "patch", f"pods/{NAME}-0")
    deadline = time.monotonic() + GRANTED_SECONDS
    while kubectl.run(*asked, f"--as=system:serviceaccount:{NAMESPACE}:{ACCOUNT}").returncode:
        assert time.monotonic() < deadline, "The role was not granted in time."
        time.sleep(0.05)
