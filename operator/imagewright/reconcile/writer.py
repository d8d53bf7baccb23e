"""What is written about an object, and what is known of it once a write met another's."""

from typing import Generic

from imagewright.api.imagebuild import Metadata
from imagewright.metrics import Metrics
from imagewright.ports import Body, Cluster, Conflict, Gone
from imagewright.reconcile.store import ObjectT, Store


class Writer(Generic[ObjectT]):
    """Writes statuses of one kind; what the API server answers goes into the store at once."""

    def __init__(self, cluster: Cluster, store: Store[ObjectT], metrics: Metrics) -> None:
        self._cluster, self._store, self._metrics = cluster, store, metrics

    async def write(self, meta: Metadata, patch: Body) -> None:
        """Merge `patch` into the status of the version that `meta` is of. Raises Conflict."""
        writes = self._metrics.writes
        body = {"metadata": {"resourceVersion": meta.resource_version}, "status": patch}
        try:
            written = await self._cluster.patch_status(meta.namespace, meta.name, body)
        except Conflict as error:
            writes.labels("conflict").inc()
            if isinstance(error, Gone):
                self._store.drop(meta.uid)
            raise
        writes.labels("written").inc()
        self._store.keep(written)

    async def renew(self, uid: str) -> bool:
        """Somebody wrote first: see what is there now. False where there is nothing any more."""
        known = self._store.get(uid)
        if known is None:
            return False
        meta = known.metadata
        try:
            body = await self._cluster.get_object(meta.namespace, meta.name)
        except Gone:
            body = {"metadata": {"uid": ""}}
        if body["metadata"]["uid"] != uid:
            self._store.drop(uid)
            return False
        self._store.keep(body)
        return True
