"""The control side without a daemon: errors, options, messages."""

import json

import grpc
import pytest

from imagewright.clients.buildkit import definition
from imagewright.clients.buildkit.channel import CONNECT_SECONDS, Tls, options_for, target_of
from imagewright.clients.buildkit.errors import (
    MEANINGS,
    SolveError,
    TLSRefused,
    Unreachable,
    translate,
)
from imagewright.clients.buildkit.proto import control_pb2, ops_pb2, policy_pb2
from imagewright.clients.buildkit.request import Cache, Export, Solve, message_of


def failure(code: grpc.StatusCode, text: str, **details: object) -> grpc.aio.AioRpcError:
    """A failed call with these typed details."""
    status = control_pb2.ErrorStatus(code=2, message=text)
    for name, value in details.items():
        kind = f"github.com/moby/buildkit/{name.replace('_', '.')}+json"
        status.details.add(type_url=kind, value=json.dumps(value).encode())
    trailer = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailer, details=text)


def test_every_grpc_status_has_a_meaning() -> None:
    assert set(MEANINGS) == set(grpc.StatusCode)


def test_typed_details_are_read_and_stacks_are_not() -> None:
    error = translate(
        failure(
            grpc.StatusCode.UNKNOWN,
            "exit code: 7",
            errdefs_Vertex={"digest": "sha256:a"},
            errdefs_Source={"ranges": [{"start": {"line": 5}}, {"start": {"line": 4}}]},
            gatewayapi_ExitMessage={"Code": 7},
            stack_Stack={"frames": []},
        )
    )
    assert isinstance(error, SolveError)
    assert (error.details.vertex, error.details.line, error.details.exit_code) == (
        "sha256:a",
        4,
        7,
    )
    assert "stack.Stack" not in error.details.types


@pytest.mark.parametrize("raw", [b"", b"\xff\xff", b"not a message"])
def test_details_that_are_none_leave_the_text(raw: bytes) -> None:
    trailer = grpc.aio.Metadata(("grpc-status-details-bin", raw))
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNKNOWN, grpc.aio.Metadata(), trailer, details="exit code: 3"
    )
    found = translate(error)
    assert isinstance(found, SolveError)
    assert found.details.exit_code == 3


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection refused", Unreachable),
        (grpc.StatusCode.UNAVAILABLE, "Ssl handshake failed", TLSRefused),
        (grpc.StatusCode.UNAVAILABLE, "Hostname Verification Check failed", TLSRefused),
        (grpc.StatusCode.UNKNOWN, "solve: context canceled", Unreachable),
        (grpc.StatusCode.UNKNOWN, "no such thing", SolveError),
    ],
)
def test_outages_are_told_from_answers(
    code: grpc.StatusCode, text: str, kind: type[Exception]
) -> None:
    assert type(translate(failure(code, text))) is kind


def test_the_channel_has_the_options_that_the_protocol_needs() -> None:
    options = dict(options_for("localhost"))
    assert options["grpc.default_authority"] == "localhost"
    assert int(options["grpc.absolute_max_metadata_size"]) >= 16 << 20
    assert int(options["grpc.max_receive_message_length"]) >= 16 << 20
    assert "grpc.keepalive_time_ms" not in options


def test_an_attempt_to_connect_has_more_time_than_lies_between_two() -> None:
    """gRPC's `min_reconnect_backoff_ms` is the time that one attempt may take at least."""
    options = dict(options_for("localhost"))
    assert int(options["grpc.max_reconnect_backoff_ms"]) <= 1000
    assert int(options["grpc.min_reconnect_backoff_ms"]) == CONNECT_SECONDS * 1000 >= 5000


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("unix:///run/b.sock", "unix:/run/b.sock"),
        ("tcp://b.example:1234", "dns:///b.example:1234"),
    ],
)
def test_addresses_are_written_as_buildkit_writes_them(address: str, target: str) -> None:
    assert target_of(address) == target


@pytest.mark.parametrize("address", ["", "b:1234", "http://b", "unix://", "docker-container://x"])
def test_other_addresses_are_refused_with_a_sentence(address: str) -> None:
    with pytest.raises(ValueError, match="write unix:///path or tcp://host:port"):
        target_of(address)


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(ValueError, match="give both or none"):
        Tls(b"ca", cert=b"cert")
    assert "secret" not in repr(Tls(b"ca", b"cert", b"secret"))


def test_old_daemons_find_the_exporter_in_the_fields_they_know() -> None:
    message = message_of(Solve("r", exports=[Export("image", {"name": "a"})]))
    assert message.ExporterDeprecated == "image"
    assert dict(message.ExporterAttrsDeprecated) == {"name": "a"}
    assert message.Exporters[0].Type == "image"


def test_caches_are_named_to_the_daemon_and_to_its_frontend() -> None:
    imports = [Cache("registry", {"ref": "a.example/c"}), Cache("inline")]
    attrs = {"target": "x"}
    message = message_of(
        Solve("r", attrs=attrs, cache_imports=imports, cache_exports=[Cache("inline")])
    )
    assert [(one.Type, dict(one.Attrs)) for one in message.Cache.Imports] == [
        ("registry", {"ref": "a.example/c"}),
        ("inline", {}),
    ]
    assert [one.Type for one in message.Cache.Exports] == ["inline"]
    assert json.loads(message.FrontendAttrs["cache-imports"]) == [
        {"Type": "registry", "Attrs": {"ref": "a.example/c"}},
        {"Type": "inline", "Attrs": {}},
    ]
    assert attrs == {"target": "x"}


def test_what_was_not_asked_for_is_not_sent() -> None:
    message = message_of(Solve("r"))
    assert not message.HasField("Cache")
    assert "cache-imports" not in message.FrontendAttrs
    assert list(message_of(Solve("r", entitlements=["network.host"])).Entitlements) == [
        "network.host"
    ]


def test_a_cache_does_not_show_its_attributes() -> None:
    assert "s3cret" not in repr(Cache("s3", {"secret_access_key": "s3cret"}))


def test_a_checksum_is_a_rule_for_that_very_url() -> None:
    message = message_of(Solve("r", checksums={"https://a.example/c": "ab"}))
    (rule,) = message.SourcePolicy.rules
    assert rule.selector.match_type == policy_pb2.EXACT
    assert rule.updates.attrs["http.checksum"] == "sha256:ab"
    assert not message_of(Solve("r")).HasField("SourcePolicy")


def test_a_definition_chains_its_actions_and_names_every_operation() -> None:
    found = definition.files({"b/c": b"2", "a": b"1"})
    body, end = (ops_pb2.Op.FromString(raw) for raw in getattr(found, "def"))
    chain = [(one.input, one.secondaryInput, one.output) for one in body.file.actions]
    assert chain == [(-1, -1, -1), (0, -1, -1), (1, -1, 0)]
    assert end.inputs[0].digest in found.metadata
    assert definition.files({}).metadata


@pytest.mark.parametrize(
    ("url", "identifier"),
    [
        ("https://me@git.example/a.git", "git://git.example/a.git"),
        ("git@git.example:team/a.git", "git://git.example/team/a.git"),
        ("git://git.example:9418/a", "git://git.example:9418/a"),
    ],
)
def test_a_repository_is_named_by_host_and_path(url: str, identifier: str) -> None:
    assert definition.git_op(definition.GitSource(url)).identifier == identifier
