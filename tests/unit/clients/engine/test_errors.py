"""What goes wrong, and what it means."""

import errno
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from imagewright.clients.engine.errors import (
    EngineError,
    Refused,
    StreamError,
    TlsFailed,
    Unreachable,
    refusal,
    translate,
)

KEY = ConnectionKey(
    "engine.test",
    2376,
    is_ssl=True,
    ssl=True,
    proxy=None,
    proxy_auth=None,
    proxy_headers_hash=None,
)
SECRET = "buildargs=s3cret"


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        pytest.param(TimeoutError(), Unreachable, "in time", id="too late"),
        pytest.param(
            aiohttp.ServerTimeoutError(), Unreachable, "in time", id="too late for aiohttp"
        ),
        pytest.param(
            aiohttp.ClientConnectorError(KEY, OSError(errno.ECONNREFUSED, "refused")),
            Unreachable,
            "engine.test",
            id="nobody is there",
        ),
        pytest.param(
            aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "wrong version")),
            TlsFailed,
            "engine.test",
            id="no handshake",
        ),
        pytest.param(
            aiohttp.ClientConnectorCertificateError(KEY, ssl.CertificateError("unknown")),
            TlsFailed,
            "unknown",
            id="an unknown certificate",
        ),
        pytest.param(
            aiohttp.ClientOSError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] alert"),
            TlsFailed,
            "CERTIFICATE_REQUIRED",
            id="our certificate is not accepted, as the first answer shows",
        ),
        pytest.param(ssl.SSLError(1, "broken"), TlsFailed, "broken", id="TLS below aiohttp"),
        pytest.param(
            aiohttp.ClientOSError(errno.EPIPE, f"Can not write to http://e/build?{SECRET}"),
            Unreachable,
            "Broken pipe",
            id="the wire broke while we wrote",
        ),
        pytest.param(aiohttp.ServerDisconnectedError(SECRET), Unreachable, "closed", id="hung up"),
        pytest.param(aiohttp.ClientPayloadError(SECRET), Unreachable, "closed", id="cut short"),
        pytest.param(ConnectionResetError(), Unreachable, "closed", id="closed, without a number"),
        pytest.param(EOFError(), Unreachable, "closed", id="the end of a socket"),
        pytest.param(
            aiohttp.InvalidURL(URL(f"http://e/?{SECRET}")), Unreachable, "closed", id="any other"
        ),
        pytest.param(StreamError("no"), StreamError, "no", id="what has a meaning keeps it"),
    ],
)
def test_what_breaks_has_a_meaning(error: Exception, kind: type[EngineError], text: str) -> None:
    found = translate(error)

    assert type(found) is kind
    assert text in str(found)
    assert "s3cret" not in str(found)


def test_a_fault_of_ours_has_none() -> None:
    with pytest.raises(KeyError):
        translate(KeyError("ours"))


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        pytest.param(404, b'{"message":"No such image: x"}\n', "No such image: x", id="as JSON"),
        pytest.param(404, b"page not found\n", "page not found", id="as plain text"),
        pytest.param(503, b"", "503 Service Unavailable", id="as nothing"),
        pytest.param(599, b"", "status 599", id="as nothing known"),
        pytest.param(500, b'{"other":1}', '{"other":1}', id="as other JSON"),
        pytest.param(500, b"[]", "[]", id="as a list"),
        pytest.param(500, b"\xff", "\ufffd", id="as no text"),
    ],
)
def test_an_answer_with_an_error_keeps_its_status_and_words(
    status: int, body: bytes, text: str
) -> None:
    found = refusal(status, body)

    assert isinstance(found, Refused)
    assert (found.status, str(found)) == (status, text)


def test_plain_text_to_a_port_with_tls_is_a_matter_of_tls() -> None:
    found = refusal(400, b"Client sent an HTTP request to an HTTPS server.\n")

    assert isinstance(found, TlsFailed)
