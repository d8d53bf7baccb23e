"""The token server of a registry: bearer tokens for who knows the password, as a process.

The two ways to ask are those of the distribution project: GET with basic authentication, and POST
with grant_type=password (docs/spec/auth/token.md and oauth.md). Every request is written to a log,
without what is secret in it, so that a test sees which way was taken.
"""

import argparse
import base64
import http.server
import json
import secrets
import time
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509 import load_pem_x509_certificate

from devstack.registries import ISSUER, PASSWORD, USERNAME

LIFE_SECONDS = 300


class Signer:
    """Makes tokens that the registry trusts, by the key and certificate at these paths."""

    def __init__(self, key: Path, certificate: Path) -> None:
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        if not isinstance(loaded, rsa.RSAPrivateKey):
            raise TypeError(f"{key} holds no RSA key.")
        self._key = loaded
        der = load_pem_x509_certificate(certificate.read_bytes()).public_bytes(
            serialization.Encoding.DER
        )
        self._chain = [base64.b64encode(der).decode()]

    def token(self, service: str, scopes: list[str], *, known: bool) -> str:
        """A token for what the scopes ask, or, for who is not known, for nothing."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": USERNAME if known else "",
            "aud": service,
            "exp": now + LIFE_SECONDS,
            "nbf": now - 10,
            "iat": now,
            "jti": secrets.token_hex(8),
            "access": [access_of(scope) for scope in scopes] if known else [],
        }
        header = {"typ": "JWT", "alg": "RS256", "x5c": self._chain}
        text = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{encoded(signature)}"


def access_of(scope: str) -> dict[str, object]:
    """What one scope asks: `repository:team/app:pull,push`."""
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def encoded(data: bytes) -> str:
    """Base64 as JWTs have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def handler(signer: Signer, log: Path) -> type[http.server.BaseHTTPRequestHandler]:
    """Answers both ways of asking."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # the library's name
            query = parse_qs(urlsplit(self.path).query)
            given = self.headers.get("Authorization", "")
            pair = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
            wrong = given not in {"", f"Basic {pair}"}
            self._answer(query, known=given == f"Basic {pair}", wrong=wrong)

        def do_POST(self) -> None:  # the library's name
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            form = parse_qs(body)
            given = (form.get("username", [""])[0], form.get("password", [""])[0])
            known = given == (USERNAME, PASSWORD)
            self._answer(form, known=known, wrong=not known)

        def _answer(self, asked: dict[str, list[str]], *, known: bool, wrong: bool) -> None:
            scopes = [one for scope in asked.get("scope", []) for one in scope.split()]
            with log.open("a") as lines:
                line = {"method": self.command, "known": known, "scopes": scopes}
                lines.write(json.dumps(line) + "\n")
            status = HTTPStatus.UNAUTHORIZED if wrong else HTTPStatus.OK
            service = asked.get("service", [""])[0]
            token = "" if wrong else signer.token(service, scopes, known=known)
            said = {"token": token, "access_token": token, "expires_in": LIFE_SECONDS}
            content = json.dumps({} if wrong else said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Nothing but the log of requests: a line of the library would show queries."""

    return Handler


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="devstack.tokenserver", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="with token.key and token.crt")
    options = parser.parse_args()
    signer = Signer(options.folder / "token.key", options.folder / "token.crt")
    serve = handler(signer, options.folder / "tokens.jsonl")
    http.server.ThreadingHTTPServer(("127.0.0.1", options.port), serve).serve_forever()


if __name__ == "__main__":
    main()
