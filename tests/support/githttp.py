"""A git server over HTTP that asks who is there: git's own backend behind a small server."""

import base64
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

USER, PASSWORD = "builder", "correct horse"


@dataclass(slots=True)
class GitHttp:
    """A server. `asked` are the Authorization headers it got; `redirect` sends all elsewhere."""

    url: str
    asked: list[str] = field(default_factory=list)
    redirect: str = ""
    password: str = PASSWORD


@contextmanager
def serve_private(base: Path) -> Iterator[GitHttp]:
    """Serve every repository below `base` to USER with PASSWORD."""
    state = GitHttp("")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(base, state))
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def _handler(  # noqa: C901  # a class, and all of it
    base: Path, state: GitHttp
) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name
            self._serve()

        def do_POST(self) -> None:  # the library's name
            self._serve()

        def _serve(self) -> None:
            given = self.headers.get("Authorization", "")
            state.asked.append(given)
            if state.redirect:
                self.send_response(HTTPStatus.FOUND)
                self.send_header("Location", state.redirect + self.path)
                self.end_headers()
                return
            right = base64.b64encode(f"{USER}:{state.password}".encode()).decode()
            if given != f"Basic {right}":
                self.send_response(HTTPStatus.UNAUTHORIZED)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            self._answer(_backend(base, self))

        def _answer(self, output: bytes) -> None:
            head, _, body = output.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Say nothing."""

    return Handler


def _backend(base: Path, request: http.server.BaseHTTPRequestHandler) -> bytes:
    """What git's own program answers."""
    path, _, query = request.path.partition("?")
    environment = {
        **os.environ,
        "GIT_PROJECT_ROOT": str(base),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_METHOD": request.command,
        "CONTENT_TYPE": request.headers.get("Content-Type", ""),
        "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
    }
    body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
    return subprocess.run(
        ["git", "http-backend"], env=environment, input=body, stdout=-1, check=True
    ).stdout
