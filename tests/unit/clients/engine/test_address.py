"""Where engines listen."""

import pytest

from imagewright.clients.engine.address import Address, Tls, parse


@pytest.mark.parametrize(
    ("text", "address", "authority"),
    [
        pytest.param("unix:///run/d.sock", Address(path="/run/d.sock"), "engine", id="a socket"),
        pytest.param("tcp://h:2376", Address(host="h", port=2376), "h:2376", id="a host"),
        pytest.param("tcp://h:2376/", Address(host="h", port=2376), "h:2376", id="with a slash"),
        pytest.param("tcp://[::1]:1", Address(host="::1", port=1), "[::1]:1", id="an IPv6 host"),
    ],
)
def test_addresses(text: str, address: Address, authority: str) -> None:
    assert parse(text) == address
    assert parse(text).authority == authority


@pytest.mark.parametrize(
    "text",
    ["", "unix://", "unix://run/d.sock", "/run/d.sock", "tcp://h", "tcp://:1", "tcp://h:x",
     "tcp://h:99999", "tcp://h:1/path", "http://h:1", "ssh://h:1", "npipe:////./pipe/x"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is no address of an engine"):
        parse(text)


def test_a_key_is_not_shown() -> None:
    assert "s3cret" not in repr(Tls(b"ca", b"s3cret", b"s3cret"))


def test_half_a_client_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="both or none"):
        Tls(b"ca", cert=b"cert")
