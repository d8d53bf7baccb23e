"""A web server with one archive, as an artifact store would serve it: with an ETag."""

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

Mode = Literal["w:gz", "w:xz", "w:bz2", "w:"]
PACKED_AT = 1700000000.25
"""A time with a fraction makes Python write PAX headers, in the PAX format."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A served archive: its URL and digest."""

    url: str
    sha256: str
    server: http.server.ThreadingHTTPServer

    def stop(self) -> None:
        """End the server."""
        self.server.shutdown()
        self.server.server_close()


def pack(files: Mapping[str, str], mode: Mode = "w:gz", style: int = tarfile.GNU_FORMAT) -> bytes:
    """The files as a tar archive, compressed as its mode says; equal files give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=style) as archive:
        for name, text in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(text.encode()), 0o644, PACKED_AT
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def serve_archive(files: Mapping[str, str]) -> Archive:
    """Serve the files as /context.tar.gz on a free port of loopback."""
    return serve({"/context.tar.gz": pack(files)}, "/context.tar.gz")


def serve(contents: Mapping[str, bytes], path: str) -> Archive:
    """Serve these contents; the URL and digest are those of `path`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(contents))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}{path}"
    return Archive(url, hashlib.sha256(contents[path]).hexdigest(), server)


def _handler(contents: Mapping[str, bytes]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:  # the library's name
            self.do_GET()

        def do_GET(self) -> None:  # the library's name
            content = contents.get(self.path, b"")
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            status = HTTPStatus.OK if self.path in contents else HTTPStatus.NOT_FOUND
            if status is HTTPStatus.OK and self.headers.get("If-None-Match") == tag:
                status, content = HTTPStatus.NOT_MODIFIED, b""
            self.send_response(status)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Say nothing: the benchmark's output is its own."""

    return Handler
