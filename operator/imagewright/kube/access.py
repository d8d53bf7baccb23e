"""How to reach the API server, and as whom: from a kubeconfig or from inside a Pod."""

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from imagewright.kube.identity import Identity, NoAccess, from_token_file
from imagewright.kube.kubeconfig import read_context

IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a Pod finds its token and its cluster's authority."""
OWN_KUBECONFIG = "~/.kube/config"
UNSUPPORTED = {"proxy-url", "tls-server-name"}


class Access:
    """An API server's URL, the TLS to speak to it, and the header that says who asks.

    `authorities` are PEM certificates, the system's where they are None. `identify` blocks; so
    one is made in a thread. Raises NoAccess.
    """

    def __init__(
        self,
        server: str,
        authorities: str | None,
        identify: Callable[[], Identity],
        *,
        verify: bool = True,
    ) -> None:
        self.server = server.rstrip("/")
        self._authorities, self._identify, self._verify = authorities, identify, verify
        self._identity = identify()

    async def authorization(self) -> str:
        """The value of the Authorization header, fresh; empty where a certificate says it.

        Raises NoAccess.
        """
        if time.monotonic() > self._identity.until:
            self._identity = await asyncio.to_thread(self._identify)
        return self._identity.header

    def tls(self) -> ssl.SSLContext:
        """The TLS to speak to the server; blocks. Raises NoAccess."""
        try:
            context = ssl.create_default_context(cadata=self._authorities)
            if not self._verify:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if self._identity.certificate:
                _present(context, self._identity)
        except ssl.SSLError as error:
            raise NoAccess(f"A certificate for {self.server} is none: {error}.") from error
        return context


async def load_access(kubeconfig: str = "") -> Access:
    """The access of `kubeconfig`, or of the Pod we are in, or of the user's own kubeconfig.

    Raises NoAccess where there is none.
    """
    return await asyncio.to_thread(_load, kubeconfig)


def _load(kubeconfig: str) -> Access:
    if not kubeconfig and (IN_CLUSTER / "token").exists():
        return _of_pod(IN_CLUSTER)
    return _of_kubeconfig(kubeconfig or os.environ.get("KUBECONFIG") or OWN_KUBECONFIG)


def _of_pod(folder: Path) -> Access:
    try:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        authorities = (folder / "ca.crt").read_text()
    except (KeyError, OSError) as error:
        raise NoAccess(f"This looks like a Pod, but its cluster is not told: {error}.") from error
    host = f"[{host}]" if ":" in host else host
    return Access(
        f"https://{host}:{port}", authorities, partial(from_token_file, folder / "token")
    )


def _of_kubeconfig(paths: str) -> Access:
    context = read_context(paths)
    server = context.cluster.fields.get("server")
    if not server:
        raise NoAccess(f"The cluster of the current context in {paths} has no server.")
    for unknown in UNSUPPORTED & context.cluster.fields.keys():
        raise NoAccess(
            f"The cluster of the current context in {paths} has a {unknown}, which is not "
            "supported: give it a server that is reached directly, by its own name."
        )
    authorities = context.cluster.text("certificate-authority") or None
    verify = not context.cluster.fields.get("insecure-skip-tls-verify", False)
    return Access(server, authorities, context.identify, verify=verify)


def _present(context: ssl.SSLContext, identity: Identity) -> None:
    """Let the context show a certificate. It reads files only: this one is never on a disk."""
    with os.fdopen(os.memfd_create("identity"), "w") as file:
        file.write(f"{identity.certificate}\n{identity.key}")
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
