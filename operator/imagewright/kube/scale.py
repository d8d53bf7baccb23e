"""The StatefulSet whose Pods are workers: its scale, and the annotation that holds a Pod."""

from dataclasses import dataclass
from typing import Any

from imagewright.kube.client import KubeClient
from imagewright.ports import Gone, Scale

HOLD = "cluster-autoscaler.kubernetes.io/safe-to-evict"
"""The cluster autoscaler leaves a node alone while one of its Pods says "false" here."""


@dataclass(frozen=True, slots=True)
class StatefulSet:
    """A ports.WorkerSet; its Pods are numbered from 0."""

    client: KubeClient
    namespace: str
    name: str

    async def scale(self) -> Scale:
        """How many replicas are asked for. Raises Gone."""
        return _scale(await self.client.get(self._path))

    async def resize(self, seen: Scale, replicas: int) -> Scale:
        """Ask for so many replicas. Raises Conflict where `seen` is not the latest, Gone."""
        patch = {"metadata": {"resourceVersion": seen.version}, "spec": {"replicas": replicas}}
        return _scale(await self.client.patch(self._path, patch))

    async def hold(self, ordinal: int) -> None:
        """Say that this Pod is not to be evicted; one that is gone is fine."""
        await self._annotate(ordinal, "false")

    async def release(self, ordinal: int) -> None:
        """Say nothing of the kind any more.

        Not "true": that would give up Pods with local volumes, which the autoscaler spares.
        """
        await self._annotate(ordinal, None)

    @property
    def _path(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/statefulsets/{self.name}/scale"

    async def _annotate(self, ordinal: int, value: str | None) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}-{ordinal}"
        try:
            await self.client.patch(path, {"metadata": {"annotations": {HOLD: value}}})
        except Gone:
            return


def _scale(body: dict[str, Any]) -> Scale:
    """No number means none: the API server leaves a zero out."""
    return Scale(body["spec"].get("replicas", 0), body["metadata"]["resourceVersion"])
