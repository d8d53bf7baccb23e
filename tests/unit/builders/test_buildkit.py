"""An Order in BuildKit's words."""

import pytest

from imagewright.backend import Backend
from imagewright.builders.buildkit import attributes, context_of, exports, kept, older, request_of
from imagewright.clients.buildkit.proto.ops_pb2 import Definition, Op
from imagewright.domain.plan import Directory, Git, Http, Inline, Order, Plan
from imagewright.domain.reference import parse_all
from imagewright.ports import Rejected

URL, SHA = "https://a.example/c.tar.gz", "a" * 64


def ops(definition: Definition) -> list[Op]:
    """The operations, in order."""
    return [Op.FromString(raw) for raw in getattr(definition, "def")]


@pytest.mark.row("seed-18")
def test_options_become_attributes_and_nothing_else_does() -> None:
    plan = Plan(
        Inline({"Dockerfile": ""}),
        target="t",
        build_args={"A": "1"},
        labels={"l": "2"},
        platforms=("linux/amd64", "linux/arm64"),
        pull=True,
        no_cache=True,
        network="none",
    )
    assert attributes(plan) == {
        "target": "t",
        "build-arg:A": "1",
        "label:l": "2",
        "platform": "linux/amd64,linux/arm64",
        "image-resolve-mode": "pull",
        "no-cache": "",
        "force-network-mode": "none",
    }
    assert attributes(Plan(Inline({}))) == {}


@pytest.mark.row("S10")
def test_names_are_pushed_by_one_exporter_and_none_pushes_nothing() -> None:
    plan = Plan(Inline({}), annotations={"k": "v"})
    (export,) = exports(Order("r", plan, parse_all(["r.example/a:1", "r.example/b"])))
    assert export.attrs == {
        "name": "r.example/a:1,r.example/b:latest",
        "push": "true",
        "annotation.k": "v",
    }
    assert exports(Order("r", plan)) == ()


def test_inline_files_are_two_inputs_and_need_no_session() -> None:
    plan = Plan(Inline({"Dockerfile": "FROM scratch", ".dockerignore": "b", "a": "", "b": ""}))
    request = request_of(Order("r", plan), context_of(plan), session="")
    paths = [
        action.mkfile.path for op in ops(request.inputs["context"]) for action in op.file.actions
    ]
    assert paths == ["/.dockerignore", "/Dockerfile", "/a"]
    assert request.attrs["filename"] == "Dockerfile"
    assert request.session == ""


def test_a_context_dir_scopes_inline_files_and_an_empty_one_is_refused() -> None:
    plan = Plan(Inline({"app/Dockerfile": "x", "other/y": ""}), context_dir="app")
    (op, _) = ops(context_of(plan).inputs["context"])
    assert [action.mkfile.path for action in op.file.actions] == ["/Dockerfile"]
    with pytest.raises(Rejected, match="no inline file lies there"):
        context_of(Plan(Inline({"Dockerfile": ""}), context_dir="nope"))


def test_a_git_tree_is_fetched_at_its_commit() -> None:
    source = Git("https://git.example/app", ref="refs/heads/main", commit="c" * 40)
    context = context_of(Plan(source, context_dir="sub", dockerfile="d/Dockerfile"))
    (op, _) = ops(context.inputs["context"])
    assert op.source.identifier == "git://git.example/app#refs/heads/main:sub"
    assert op.source.attrs["git.checksum"] == "c" * 40
    assert op.source.attrs["git.fetchbycommit"] == "true"
    assert op.source.attrs["git.skipsubmodules"] == "true"
    assert context.attrs == {"filename": "d/Dockerfile"}


def test_a_url_is_fetched_by_the_frontend_and_checked_by_a_policy() -> None:
    context = context_of(Plan(Http(URL, SHA), context_dir="sub"))
    assert context.attrs == {
        "context": URL,
        "filename": "sub/Dockerfile",
        "contextsubdir": "sub",
    }
    assert context.checksums == {URL: SHA}
    assert context_of(Plan(Http(URL))).checksums == {}


def test_a_url_with_a_dockerfile_of_its_own_is_unpacked_by_llb() -> None:
    context = context_of(Plan(Http(URL, SHA), dockerfile_inline="FROM scratch"))
    source, unpack, _ = ops(context.inputs["context"])
    assert source.source.attrs["http.checksum"] == f"sha256:{SHA}"
    assert unpack.file.actions[0].copy.attemptUnpackDockerCompatibility
    assert "context" not in context.attrs
    (made, _) = ops(context.inputs["dockerfile"])
    assert made.file.actions[0].mkfile.data == b"FROM scratch"


def test_a_folder_is_served_by_a_session() -> None:
    context = context_of(Plan(Directory("/src"), dockerfile="d"))
    assert (context.directory, context.attrs, context.inputs) == ("/src", {"filename": "d"}, {})


def test_an_ignore_file_beside_the_dockerfile_comes_first() -> None:
    files = {".dockerignore": b"a\n", "Dockerfile.dockerignore": b"b\n", "a": b"", "b": b""}
    assert "a" in kept(files, "Dockerfile")
    assert "b" not in kept(files, "Dockerfile")


@pytest.mark.parametrize(
    ("version", "is_older"),
    [
        ("", True),
        ("v0.8.4", True),
        ("v0.11.0", False),
        ("v0.32.2", False),
        ("v0.0.0+unknown", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, is_older: bool) -> None:
    assert older(version, (0, 11)) is is_older


@pytest.mark.row("seed-6")
def test_a_backend_without_a_builder_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="needs a builder"):
        Backend({})
