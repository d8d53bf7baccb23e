"""BuildCachePrunes as a user's program sees them."""

from devstack.builds import Builds
from imagewright.api.crd import BUILD_CACHE_PRUNE
from imagewright.api.imagebuild import GROUP, VERSION


class Prunes(Builds):
    """The BuildCachePrunes of the cluster; a context manager that watches while it is open."""

    kind = BUILD_CACHE_PRUNE.name

    def _path(self, name: str = "") -> str:
        path = f"/apis/{GROUP}/{VERSION}/{BUILD_CACHE_PRUNE.plural}"
        return f"{path}/{name}" if name else path
