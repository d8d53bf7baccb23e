"""One warm gRPC channel to a BuildKit daemon, with the options that its protocol needs."""

from dataclasses import dataclass, field

import grpc

MAX_MESSAGE = 16 << 20
"""Bytes. BuildKit's own limit in both directions (containerd's defaults)."""

CONNECT_SECONDS = 5
"""What one attempt to connect may take, with TLS and the first words of HTTP/2."""


@dataclass(frozen=True, slots=True)
class Tls:
    """What mutual TLS needs, as PEM bytes. `server_name` overrides the host of the address."""

    ca: bytes
    cert: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("A client certificate and its key go together: give both or none.")


def open_channel(address: str, tls: Tls | None = None) -> grpc.aio.Channel:
    """A channel to `unix:///path` or `tcp://host:port`; nothing is dialled before the first call.

    Raises ValueError for any other form of address.
    """
    target = target_of(address)
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options_for("localhost"))
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert)
    options = options_for(tls.server_name)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.aio.secure_channel(target, credentials, options=options)


def target_of(address: str) -> str:
    """gRPC's way to write an address that people write as BuildKit does."""
    scheme, separator, rest = address.partition("://")
    if separator and rest and scheme == "unix":
        return "unix:" + rest
    if separator and rest and scheme == "tcp":
        return "dns:///" + rest
    raise ValueError(
        f"{address!r} is no address of a BuildKit daemon: write unix:///path or tcp://host:port."
    )


def options_for(authority: str) -> list[tuple[str, str | int]]:
    """Channel options, each for a reason met in practice."""
    options: list[tuple[str, str | int]] = [
        # A warm channel is ours; a proxy from the environment is not meant for it.
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        ("grpc.max_send_message_length", MAX_MESSAGE),
        # Typed errors carry the Dockerfile and its LLB in a trailer. gRPC's limit of 16 KiB would
        # replace the real error by "received metadata size exceeds hard limit".
        ("grpc.max_metadata_size", 8 << 20),
        ("grpc.absolute_max_metadata_size", 16 << 20),
        # A daemon that comes back is used again within a second or so, not after gRPC's 120 s.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # By its name another pause, this is the time that an attempt may take: TLS to a busy
        # daemon takes more than those 100 ms.
        ("grpc.min_reconnect_backoff_ms", CONNECT_SECONDS * 1000),
    ]
    if authority:
        # gRPC sends a unix socket's path, percent-encoded, as :authority; strict servers refuse
        # it.
        options.append(("grpc.default_authority", authority))
    return options
