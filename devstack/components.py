"""How each server is started: its flags, its files, and how it is seen to be ready."""

import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from devstack.registries import Registries
from devstack.server import Command, listening

ADMIN_TOKEN = "devstack-admin"  # noqa: S105  # of a throw-away API server on loopback
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "resources": [{"group": "imagewright.dev"}]},
        {"level": "Metadata", "resources": [{"group": "coordination.k8s.io"}]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a component lives: its program and a folder of its own."""

    program: Path
    folder: Path


def etcd(place: Place, port: int, peer_port: int) -> Command:
    """A single etcd, with fsync: the benchmark counts its writes."""
    url = f"http://127.0.0.1:{port}"
    peer = f"http://127.0.0.1:{peer_port}"
    return Command(
        "etcd",
        [
            str(place.program),
            f"--data-dir={place.folder / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
        ],
        lambda: listening(port),
    )


def buildkitd(
    place: Place, address: str, registries: Registries, more: Sequence[str] = ()
) -> Command:
    """A buildkitd with its OCI worker, which knows how each registry is spoken to.

    `more` are arguments of its own.
    """
    config = place.folder / "buildkitd.toml"
    plain = "".join(
        f'[registry."{host}"]\n  '
        # Without a word buildkitd speaks plain http to a registry on loopback.
        + (f'http = false\n  ca = ["{registries.ca}"]\n' if name == "tls" else "http = true\n")
        for name, host in registries.hosts.items()
    )
    # By default the trace socket is one of the machine, which stacks would take from each other.
    traces = f'[otel]\n  socketPath = "{place.folder / "otel.sock"}"\n'
    config.write_text(f'{plain}{traces}[worker.oci]\n  gc = true\n  maxUsedSpace = "8GB"\n')
    arguments = [
        str(place.program),
        f"--config={config}",
        f"--root={place.folder / 'buildkit'}",
        f"--addr={address}",
        "--oci-worker=true",
        "--containerd-worker=false",
        *more,
    ]
    return Command("buildkitd", arguments, lambda: _reachable(address))


def namespace_controller(place: Place, kubeconfig: Path, port: int) -> Command:
    """Empties namespaces that are deleted, and lets them go, as every cluster does."""
    return Command(
        "kube-controller-manager",
        [
            str(place.program),
            f"--kubeconfig={kubeconfig}",
            "--controllers=namespace-controller",
            "--leader-elect=false",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={place.folder}",
        ],
        lambda: listening(port),
    )


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A kube-apiserver's files: what its clients must know, and where its audit log is."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path:
        """The certificate of the authority that signed its own."""
        return self.folder / "ca.crt"

    @property
    def audit_log(self) -> Path:
        """A JSON line for each request about our kinds and about leases."""
        return self.folder / "audit.log"

    def prepare(self) -> None:
        """Write keys, certificates, tokens and the audit policy."""
        authority = trustme.CA()
        server = authority.issue_cert("127.0.0.1", "localhost")
        authority.cert_pem.write_to_path(self.ca)
        server.private_key_pem.write_to_path(self.folder / "server.key")
        (self.folder / "server.crt").write_bytes(
            b"".join(part.bytes() for part in server.cert_chain_pems)
        )
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self.folder / "sa.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        )
        (self.folder / "tokens.csv").write_text(f'{ADMIN_TOKEN},admin,admin,"system:masters"\n')
        (self.folder / "audit.yaml").write_text(json.dumps(AUDIT_POLICY))

    def command(self, program: Path, etcd_port: int) -> Command:
        """How it is started."""
        folder = self.folder
        return Command(
            "kube-apiserver",
            [
                str(program),
                f"--etcd-servers=http://127.0.0.1:{etcd_port}",
                f"--secure-port={self.port}",
                "--bind-address=127.0.0.1",
                f"--tls-cert-file={folder / 'server.crt'}",
                f"--tls-private-key-file={folder / 'server.key'}",
                f"--cert-dir={folder}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-signing-key-file={folder / 'sa.key'}",
                f"--service-account-key-file={folder / 'sa.key'}",
                "--authorization-mode=Node,RBAC",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--allow-privileged=true",
                f"--token-auth-file={folder / 'tokens.csv'}",
                f"--audit-policy-file={folder / 'audit.yaml'}",
                f"--audit-log-path={self.audit_log}",
                "--audit-log-mode=blocking",
            ],
            self.ready,
        )

    def ready(self) -> bool:
        """Whether it says so itself."""
        request = urllib.request.Request(  # noqa: S310  # https, our own
            f"{self.url}/readyz", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
        )
        try:
            context = ssl.create_default_context(cafile=str(self.ca))
            # A proxy that the environment names does not lead to our own loopback.
            direct = urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
            )
            with direct.open(request, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def _reachable(address: str) -> bool:
    scheme, _, rest = address.partition("://")
    if scheme == "tcp":
        return listening(int(rest.rpartition(":")[2]))
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(rest) == 0
