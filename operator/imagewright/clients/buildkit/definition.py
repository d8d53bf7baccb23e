"""Build contexts as LLB, BuildKit's own graph: what is sent so needs no session.

A definition is a list of serialized operations, each named by the digest of its bytes; the last
one has a single input and no work, and says which output is meant (BuildKit's
`solver/pb/ops.proto`).
"""

import hashlib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass

from imagewright.clients.buildkit.proto import ops_pb2

SCP_LIKE = re.compile(r"^(?:[\w.-]+@)?(?P<host>[\w.-]+):(?P<path>(?!//).+)$")
NOTHING = -1
"""In a file action: no input, or an output that only the next action sees."""
ARCHIVE = "context"
"""The name under which a download lies before it is unpacked."""


@dataclass(frozen=True, slots=True)
class GitSource:
    """A tree in a git repository: `ref` names it, `commit`, where known, pins it.

    `url` is one of https, http, git or ssh, or `user@host:path`, without a password: a URL is
    shown and kept. What a private repository wants comes by the session, and is named here:

    * `token_secret` is the id of a secret, sent as the password of basic authentication, and
      `header_secret` one that is a whole value of the header Authorization. The daemon asks the
      session for `<id>.<host>` (with the port, if the URL has one) first, and for `<id>` then; it
      sends neither to another host, but does send them in plain http.
    * `ssh_agent` is the id of an agent, for a URL of SSH.

    `known_hosts` are lines as in the file of that name. Without them the daemon believes whoever
    answers for the host.
    """

    url: str
    ref: str = ""
    commit: str = ""
    subdir: str = ""
    submodules: bool = False
    token_secret: str = ""
    header_secret: str = ""
    ssh_agent: str = ""
    known_hosts: str = ""


def files(tree: Mapping[str, bytes]) -> ops_pb2.Definition:
    """The context that holds these files (relative path to content, mode 0644), and nothing else.

    Times are those of the epoch, so equal files are equal contexts.
    """
    op = ops_pb2.Op()
    for action in _actions(tree):
        action.input = len(op.file.actions) - 1
        action.secondaryInput = NOTHING
        action.output = NOTHING
        op.file.actions.append(action)
    op.file.actions[-1].output = 0
    return _definition((op, "[internal] load inline files"))


def git(source: GitSource) -> ops_pb2.Definition:
    """The context that is this tree. A commit is fetched by itself, shallow, and verified."""
    return _definition((ops_pb2.Op(source=git_op(source)), f"[internal] load {source.url}"))


def git_op(source: GitSource) -> ops_pb2.SourceOp:
    """The operation that fetches `source`; also what the gateway API resolves."""
    fragment = source.ref + (f":{source.subdir}" if source.subdir else "")
    op = ops_pb2.SourceOp(identifier=f"git://{_location(source.url)}#{fragment}".rstrip("#"))
    op.attrs["git.fullurl"] = source.url
    if not source.submodules:
        op.attrs["git.skipsubmodules"] = "true"
    if source.commit and source.commit != source.ref:
        op.attrs["git.checksum"] = source.commit
        op.attrs["git.fetchbycommit"] = "true"
    op.attrs.update(_access(source))
    return op


def _access(source: GitSource) -> dict[str, str]:
    """The attributes by which a private repository is reached (solver/pb/attr.go)."""
    attrs = {
        "git.authtokensecret": source.token_secret,
        "git.authheadersecret": source.header_secret,
        "git.mountsshsock": source.ssh_agent,
        "git.knownsshhosts": source.known_hosts,
    }
    return {name: value for name, value in attrs.items() if value}


def archive(url: str, sha256: str = "") -> ops_pb2.Definition:
    """The unpacked archive at `url` as a context; `sha256` in hex, where known, is checked."""
    source = ops_pb2.Op(source=ops_pb2.SourceOp(identifier=url))
    source.source.attrs["http.filename"] = ARCHIVE
    if sha256:
        source.source.attrs["http.checksum"] = f"sha256:{sha256}"
    unpack = ops_pb2.Op()
    action = unpack.file.actions.add(input=NOTHING, secondaryInput=0, output=0)
    action.copy.MergeFrom(
        ops_pb2.CopyFile(
            src=f"/{ARCHIVE}",
            dest="/",
            mode=-1,
            timestamp=-1,
            attemptUnpackDockerCompatibility=True,
            createDestPath=True,
        )
    )
    return _definition((source, f"[internal] load {url}"), (unpack, "[internal] unpack context"))


def _actions(tree: Mapping[str, bytes]) -> list[ops_pb2.FileAction]:
    """Folders before what lies in them, each once."""
    if not tree:
        root = ops_pb2.MakeDirectory(path="/", mode=0o755, makeParents=True)
        return [ops_pb2.FileAction(mkdir=root)]
    actions, made = [], {""}
    for path, data in sorted(tree.items()):
        folder = posixpath.dirname(path)
        if folder not in made:
            made.add(folder)
            directory = ops_pb2.MakeDirectory(path=f"/{folder}", mode=0o755, makeParents=True)
            actions.append(ops_pb2.FileAction(mkdir=directory))
        made_file = ops_pb2.MakeFile(path=f"/{path}", mode=0o644, data=data)
        actions.append(ops_pb2.FileAction(mkfile=made_file))
    return actions


def _definition(*chain: tuple[ops_pb2.Op, str]) -> ops_pb2.Definition:
    """A definition of operations that each take the one before, each with a name for people."""
    definition = ops_pb2.Definition()
    previous = ""
    for op, name in chain:
        if previous:
            op.inputs.add(digest=previous, index=0)
        body = op.SerializeToString(deterministic=True)
        previous = "sha256:" + hashlib.sha256(body).hexdigest()
        getattr(definition, "def").append(body)
        # The daemon takes a definition without metadata for no definition at all.
        definition.metadata[previous].description["llb.customname"] = name
    end = ops_pb2.Op(inputs=[ops_pb2.Input(digest=previous, index=0)])
    getattr(definition, "def").append(end.SerializeToString(deterministic=True))
    return definition


def _location(url: str) -> str:
    """Host and path of a repository: what BuildKit names it by, whichever protocol reaches it."""
    _, separator, rest = url.partition("://")
    if separator:
        return rest.rpartition("@")[2] if "@" in rest.partition("/")[0] else rest
    if found := SCP_LIKE.match(url):
        return f"{found['host']}/{found['path'].lstrip('/')}"
    return url
