"""Several namespaces with builds, as a cluster of several teams has them."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from devstack.builds import Builds
from devstack.kubectl import kubectl
from devstack.stack import Stack
from imagewright.api.imagebuild import GROUP, PLURAL, VERSION


@asynccontextmanager
async def teams(stack: Stack, names: Sequence[str]) -> AsyncIterator[dict[str, Builds]]:
    """The builds of these namespaces, made where they are not there; all deleted at the end."""
    async with AsyncExitStack() as opened:
        found = {}
        for name in names:
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            text = json.dumps(namespace)
            await asyncio.to_thread(kubectl, stack, "apply", "--filename=-", text=text)
            found[name] = await opened.enter_async_context(Builds(str(stack.kubeconfig), name))
        yield found
        for name in names:
            # One request: with --all kubectl makes one for each, and not many in a second.
            path = f"/apis/{GROUP}/{VERSION}/namespaces/{name}/{PLURAL}"
            await asyncio.to_thread(kubectl, stack, "delete", f"--raw={path}")
