"""Certificates for the gateway and its clients, from an authority of their own."""

from dataclasses import dataclass, field
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Identity:
    """Files for mutual TLS, PEM: whom to trust, and who one is."""

    ca: Path
    cert: Path
    key: Path

    def settings(self) -> dict[str, str]:
        """As the operator's settings name them."""
        return {"ca": str(self.ca), "cert": str(self.cert), "key": str(self.key)}

    def buildctl(self) -> list[str]:
        """As buildctl is told."""
        return [f"--tlscacert={self.ca}", f"--tlscert={self.cert}", f"--tlskey={self.key}"]


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs; what it signs lies in `folder`."""

    folder: Path
    _own: trustme.CA = field(default_factory=lambda: trustme.CA(key_type=trustme.KeyType.ECDSA))

    def server(self) -> Identity:
        """A gateway on loopback."""
        return self._write("server", self._own.issue_cert("127.0.0.1", "localhost"))

    def client(self, name: str, organization: str | None = None) -> Identity:
        """Somebody of that name (CN; empty: none) and, where one is given, organization (O)."""
        issued = self._own.issue_cert(
            "someone@example.org", common_name=name or None, organization_name=organization
        )
        return self._write(name or "nameless", issued)

    def _write(self, name: str, issued: trustme.LeafCert) -> Identity:
        self.folder.mkdir(parents=True, exist_ok=True)
        files = Identity(*(self.folder / f"{name}.{kind}" for kind in ("ca", "crt", "key")))
        self._own.cert_pem.write_to_path(str(files.ca))
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        files.cert.write_bytes(chain)
        issued.private_key_pem.write_to_path(str(files.key))
        return files
