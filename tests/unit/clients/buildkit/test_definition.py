"""Contexts as LLB: what the daemon is told to fetch or to write."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.clients.buildkit import definition
from imagewright.clients.buildkit.definition import GitSource
from imagewright.clients.buildkit.proto.ops_pb2 import Definition, Op

URL, COMMIT = "https://git.example/a.git", "c" * 40


def ops(found: Definition) -> list[Op]:
    """The operations, in order."""
    return [Op.FromString(raw) for raw in getattr(found, "def")]


MADE = {
    "some files": definition.files({"a/b/c": b"1", "a/d": b"2", "e": b"3"}),
    "no files": definition.files({}),
    "a repository": definition.git(GitSource(URL)),
    "an archive": definition.archive("https://a.example/c.tar"),
}


@pytest.mark.parametrize("found", MADE.values(), ids=MADE)
def test_each_operation_takes_the_one_before_and_has_a_name_for_people(found: Definition) -> None:
    raw = getattr(found, "def")
    digests = ["sha256:" + hashlib.sha256(body).hexdigest() for body in raw]
    taken = [[one.digest for one in op.inputs] for op in ops(found)]
    assert taken == [[], *([digest] for digest in digests[:-1])]
    assert ops(found)[-1].WhichOneof("op") is None
    assert set(found.metadata) == set(digests[:-1])
    names = [one.description["llb.customname"] for one in found.metadata.values()]
    assert all(name.startswith("[internal] ") for name in names)


GIT = {
    "the default branch": (
        GitSource(URL),
        "git://git.example/a.git",
        {"git.fullurl": URL, "git.skipsubmodules": "true"},
    ),
    "a branch": (
        GitSource(URL, "main"),
        "git://git.example/a.git#main",
        {"git.fullurl": URL, "git.skipsubmodules": "true"},
    ),
    "a folder of the default branch": (
        GitSource(URL, subdir="sub"),
        "git://git.example/a.git#:sub",
        {"git.fullurl": URL, "git.skipsubmodules": "true"},
    ),
    "a branch pinned to its commit, with submodules": (
        GitSource(URL, "refs/heads/main", COMMIT, submodules=True),
        "git://git.example/a.git#refs/heads/main",
        {"git.fullurl": URL, "git.checksum": COMMIT, "git.fetchbycommit": "true"},
    ),
    "a private one over https": (
        GitSource(URL, "main", token_secret="token", header_secret="header"),
        "git://git.example/a.git#main",
        {
            "git.fullurl": URL,
            "git.skipsubmodules": "true",
            "git.authtokensecret": "token",
            "git.authheadersecret": "header",
        },
    ),
    "a private one over SSH": (
        GitSource("ssh://git@git.example:2222/a.git", ssh_agent="key", known_hosts="line\n"),
        "git://git.example:2222/a.git",
        {
            "git.fullurl": "ssh://git@git.example:2222/a.git",
            "git.skipsubmodules": "true",
            "git.mountsshsock": "key",
            "git.knownsshhosts": "line\n",
        },
    ),
    "a private one as scp writes it": (
        GitSource("git@git.example:team/a.git", "v1", ssh_agent="key"),
        "git://git.example/team/a.git#v1",
        {
            "git.fullurl": "git@git.example:team/a.git",
            "git.skipsubmodules": "true",
            "git.mountsshsock": "key",
        },
    ),
    "a commit by itself needs no pin": (
        GitSource(URL, COMMIT, COMMIT),
        f"git://git.example/a.git#{COMMIT}",
        {"git.fullurl": URL, "git.skipsubmodules": "true"},
    ),
}


@pytest.mark.parametrize(("source", "identifier", "attrs"), GIT.values(), ids=GIT)
def test_a_repository_is_asked_for_as_buildkit_names_it(
    source: GitSource, identifier: str, attrs: dict[str, str]
) -> None:
    op = definition.git_op(source)
    assert (op.identifier, dict(op.attrs)) == (identifier, attrs)


@pytest.mark.parametrize("sha256", ["", "a" * 64], ids=["of any digest", "of a known digest"])
def test_an_archive_is_checked_where_its_digest_is_known(sha256: str) -> None:
    source, unpack, _ = ops(definition.archive("https://a.example/c", sha256))
    assert source.source.attrs.get("http.checksum") == (f"sha256:{sha256}" if sha256 else None)
    (action,) = unpack.file.actions
    assert (action.input, action.secondaryInput, action.output) == (-1, 0, 0)
    assert action.copy.src == f"/{source.source.attrs['http.filename']}"


parts = st.text(alphabet="ab.", min_size=1, max_size=2).filter(lambda part: part.strip("."))
trees = st.dictionaries(
    st.lists(parts, min_size=1, max_size=3).map("/".join), st.binary(), max_size=5
)


@given(trees)
def test_files_are_written_after_their_folders_each_once_and_chained(
    tree: dict[str, bytes],
) -> None:
    (op, _) = ops(definition.files(tree))
    written: dict[str, bytes] = {}
    folders = {"/"}
    for number, action in enumerate(op.file.actions):
        assert action.input == number - 1
        assert action.output == (0 if number == len(op.file.actions) - 1 else -1)
        if action.WhichOneof("action") == "mkdir":
            assert action.mkdir.path not in folders - {"/"}
            folders.add(action.mkdir.path)
        else:
            assert (action.mkfile.path.rpartition("/")[0] or "/") in folders
            written[action.mkfile.path[1:]] = action.mkfile.data
    assert written == tree


@given(trees)
def test_equal_files_are_equal_contexts_whatever_their_order(tree: dict[str, bytes]) -> None:
    backwards = dict(reversed(tree.items()))
    assert definition.files(tree) == definition.files(backwards)
