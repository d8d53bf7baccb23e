"""An Order in BuildKit's words."""

from pathlib import Path

import pytest

from imagewright.api.reason import Reason
from imagewright.backend import Backend
from imagewright.builders.buildkit import advance_of, older
from imagewright.builders.context import context_of, kept
from imagewright.builders.memory import MemoryBuilder
from imagewright.builders.request import attributes, built_of, pushed_by_daemon, request_of
from imagewright.clients.buildkit.proto import control_pb2
from imagewright.clients.buildkit.proto.ops_pb2 import Definition, Op
from imagewright.clients.buildkit.status import event_of
from imagewright.domain.outcome import Built
from imagewright.domain.plan import Directory, Git, Http, Inline, Order, Plan, Sandbox
from imagewright.domain.progress import Advance, Output, Step
from imagewright.domain.reference import parse_all
from imagewright.ports import Failed, Rejected
from tests.support.parts import FakeKeyring, FakeSources, FakeStore, a_backend

URL, SHA = "https://a.example/c.tar.gz", "a" * 64


def ops(definition: Definition) -> list[Op]:
    """The operations, in order."""
    return [Op.FromString(raw) for raw in getattr(definition, "def")]


@pytest.mark.row("seed-18")
def test_options_become_attributes_and_nothing_else_does() -> None:
    plan = Plan(
        Inline({"Dockerfile": b""}),
        target="t",
        build_args={"A": "1"},
        labels={"l": "2"},
        platforms=("linux/amd64", "linux/arm64"),
        pull=True,
        no_cache=True,
        sandbox=Sandbox(network="none"),
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
    (export,) = pushed_by_daemon(Order("r", plan, parse_all(["r.example/a:1", "r.example/b"])))
    assert export.attrs == {
        "name": "r.example/a:1,r.example/b:latest",
        "push": "true",
        "annotation.k": "v",
    }
    assert pushed_by_daemon(Order("r", plan)) == ()


def test_inline_files_are_two_inputs_and_need_no_session() -> None:
    plan = Plan(Inline({"Dockerfile": b"FROM scratch", ".dockerignore": b"b", "a": b"", "b": b""}))
    request = request_of(Order("r", plan), context_of(plan), session="")
    paths = [
        action.mkfile.path for op in ops(request.inputs["context"]) for action in op.file.actions
    ]
    assert paths == ["/.dockerignore", "/Dockerfile", "/a"]
    assert request.attrs["filename"] == "Dockerfile"
    assert request.session == ""


def test_a_context_dir_scopes_inline_files_and_an_empty_one_is_refused() -> None:
    plan = Plan(Inline({"app/Dockerfile": b"x", "other/y": b""}), context_dir="app")
    (op, _) = ops(context_of(plan).inputs["context"])
    assert [action.mkfile.path for action in op.file.actions] == ["/Dockerfile"]
    with pytest.raises(Rejected, match="no inline file lies there"):
        context_of(Plan(Inline({"Dockerfile": b""}), context_dir="nope"))


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


def test_a_folder_is_served_by_a_session(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    context = context_of(Plan(Directory(str(tmp_path)), dockerfile="d", context_dir="app"))
    assert context.directory == str(tmp_path / "app")
    assert (context.attrs, context.inputs) == ({"filename": "d"}, {})


@pytest.mark.parametrize("name", ["nowhere", "file", "link"])
def test_a_context_dir_that_is_no_folder_of_the_source_is_refused(
    name: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("")
    (source / "link").symlink_to(tmp_path)
    with pytest.raises(Failed, match="no such folder"):
        context_of(Plan(Directory(str(source)), context_dir=name))


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
        Backend({}, FakeStore(), FakeSources())


@pytest.mark.row("seed-8")
async def test_a_backend_asks_the_builder_that_it_was_given() -> None:
    builder = MemoryBuilder()
    backend = a_backend(builder)
    plan = Plan(Git("https://git.example/app", "main"), images=("b:1", "a", "b:1"))
    resolved = await backend.resolve(plan, FakeKeyring())
    assert isinstance(resolved.source, Git)
    assert len(resolved.source.commit) == 40
    assert await backend.resolve(resolved, FakeKeyring()) is resolved
    built = await backend.build("ref", resolved, FakeKeyring(), lambda _: None)
    (order,) = builder.orders
    assert (order.ref, order.plan) == ("ref", resolved)
    assert [one.name for one in built.pushed] == ["docker.io/library/b", "docker.io/library/a"]


@pytest.mark.row("seed-9")
async def test_a_bad_name_is_refused_before_the_builder_is_asked() -> None:
    builder = MemoryBuilder()
    plan = Plan(Inline({}), images=("ok:1", "Not"))
    with pytest.raises(Rejected) as caught:
        await a_backend(builder).build("ref", plan, FakeKeyring(), lambda _: None)
    assert caught.value.reason is Reason.INVALID_REFERENCE
    assert builder.orders == []


@pytest.mark.row("seed-10")
def test_an_answer_without_a_digest_is_a_build_without_an_output() -> None:
    assert built_of(Order("r", Plan(Inline({}))), {}, ()) == Built()


def test_an_answer_gives_every_name_the_same_digest() -> None:
    answer = {"containerimage.digest": "sha256:a", "containerimage.config.digest": "sha256:b"}
    order = Order("r", Plan(Inline({})), parse_all(["r.example/a:1", "b"]))
    built = built_of(order, answer, ())
    assert (built.image_digest, built.image_id) == ("sha256:a", "sha256:b")
    assert [one.reference for one in built.pushed] == [
        "r.example/a@sha256:a",
        "docker.io/library/b@sha256:a",
    ]


def test_an_event_of_the_daemon_becomes_steps_and_output() -> None:
    message = control_pb2.StatusResponse()
    message.vertexes.add(digest="sha256:s", name="[1/1] RUN x", cached=True, error="no")
    message.logs.add(vertex="sha256:s", msg=b"said\n")
    advance = advance_of(event_of(message))
    assert advance == Advance(
        (Step("sha256:s", "[1/1] RUN x", cached=True, error="no"),),
        (Output("sha256:s", b"said\n"),),
    )


@pytest.mark.row("S12")
@pytest.mark.row("S10")
def test_no_text_of_a_user_becomes_an_attribute_of_another_name() -> None:
    texts = dict.fromkeys(["push", "filename", "context"], "evil")
    plan = Plan(Inline({"Dockerfile": b""}), build_args=texts, labels=texts, annotations=texts)
    order = Order("r", plan, parse_all(["a"]))
    request = request_of(order, context_of(plan), session="")
    assert {name for name, value in request.attrs.items() if value == "evil"} == {
        *(f"build-arg:{name}" for name in texts),
        *(f"label:{name}" for name in texts),
    }
    (export,) = pushed_by_daemon(order)
    assert export.attrs["push"] == "true"
    assert export.attrs["name"] == "docker.io/library/a:latest"


IGNORED = {
    "nothing without an ignore file": ({}, {"a", "d/b", "Dockerfile"}),
    "a file": ({".dockerignore": b"a\n"}, {".dockerignore", "d/b", "Dockerfile"}),
    "a folder": ({".dockerignore": b"d\n"}, {".dockerignore", "a", "Dockerfile"}),
    "all but one": ({".dockerignore": b"*\n!a\n"}, {"a"}),
    "a comment is none": (
        {".dockerignore": b"# a\n"},
        {".dockerignore", "a", "d/b", "Dockerfile"},
    ),
}


@pytest.mark.parametrize(("more", "left"), IGNORED.values(), ids=IGNORED)
def test_an_ignore_file_leaves_files_out_of_the_context(
    more: dict[str, bytes], left: set[str]
) -> None:
    files = {"a": b"", "d/b": b"", "Dockerfile": b"", **more}
    assert set(kept(files, "Dockerfile")) == left
