"""Repositories as contexts: real git servers, with and without a password, through the cache."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from devstack.gitserver import make_repository, serve_git
from imagewright.api.reason import Reason
from imagewright.caches.sources import Limits, SourceCache
from imagewright.domain.credential import Login
from imagewright.domain.plan import Git
from imagewright.ports import Error, Failed, Missing, Rejected
from imagewright.sources.archive import Caps
from imagewright.sources.egress import Egress
from imagewright.sources.fetch import SourceFetcher
from imagewright.sources.git import GitFetcher
from imagewright.sources.http import HttpFetcher
from tests.support.private_git import GitOverHttp, basic_header, serve_git_over_http

USER, PASSWORD = "builder", "correct horse"
HERE = Egress(allow_loopback=True)
FILES = {"Dockerfile": "FROM scratch\n", "app/main": "one\n"}


@dataclass(frozen=True)
class Held:
    """A keyring with these Secrets."""

    secrets: Mapping[str, Mapping[str, bytes]]

    async def secret(self, name: str) -> Mapping[str, bytes]:
        if name not in self.secrets:
            raise Missing(f"The Secret {name} is not there yet.")
        return self.secrets[name]

    async def config(self, name: str) -> Mapping[str, bytes]:
        raise Missing(f"The ConfigMap {name} is not there yet.")

    async def login(self, host: str) -> Login | None:
        return None

    async def logins(self) -> Mapping[str, Login]:
        return {}

    def masks(self) -> frozenset[str]:
        return frozenset()


NOBODY = Held({})
KNOWN = Held(
    {
        "right": {"username": USER.encode(), "password": PASSWORD.encode()},
        "token": {"username": USER.encode(), "token": PASSWORD.encode()},
        "wrong": {"username": USER.encode(), "password": b"wrong battery"},
        "lines": {"username": USER.encode(), "password": b"a\nhost=evil"},
        "useless": {"key": b"x"},
        "key": {"ssh-privatekey": b"k"},
    }
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with one repository, app."""
    base = tmp_path / "repositories"
    make_repository(base / "app", FILES, tag="v1")
    return base


@pytest.fixture
def server(base: Path) -> Iterator[str]:
    with serve_git(base) as url:
        yield url


@pytest.fixture
async def private(base: Path) -> AsyncIterator[GitOverHttp]:
    async with serve_git_over_http(base, basic_header(USER, PASSWORD)) as server:
        yield server


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[SourceCache]:
    async with SourceCache(tmp_path / "cache", Limits()) as cache:
        yield cache


@pytest.fixture
def sources(cache: SourceCache) -> SourceFetcher:
    return SourceFetcher(cache, GitFetcher(HERE), HttpFetcher(HERE))


def git(folder: Path, *arguments: str) -> str:
    """Run git in a repository of ours."""
    who = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.com",
        "-c",
        "protocol.file.allow=always",
    ]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: Path, files: Mapping[str, str]) -> str:
    """One more commit."""
    for name, text in files.items():
        (folder / name).write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=more")
    return git(folder, "rev-parse", "HEAD")


def read(folder: Path) -> dict[str, str]:
    """All files, by their paths."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.row("seed-5")
@pytest.mark.parametrize("revision", ["", "main", "v1", "refs/tags/v1", "commit", "old"])
async def test_a_revision_becomes_its_commit_and_its_files(
    sources: SourceFetcher, cache: SourceCache, server: str, base: Path, revision: str
) -> None:
    first = git(base / "app", "rev-parse", "HEAD")
    last = commit(base / "app", {"new": "two\n"}) if revision != "v1" else first
    expected = first if "v1" in revision or revision == "old" else last
    name = {"commit": last, "old": first}.get(revision, revision)
    at = await sources.resolve(Git(f"{server}/app", name), NOBODY)
    assert isinstance(at, Git)
    assert at.commit == expected
    async with sources.tree(at, NOBODY) as tree:
        assert tree.revision == expected
        assert read(tree.path).keys() == {*FILES, *(["new"] if expected != first else [])}
    used = await cache.usage()
    assert used > 0
    git(base / "app", "checkout", "--quiet", "--detach")
    (base / "app" / ".git" / "config").rename(base / "gone")
    async with sources.tree(at, NOBODY) as again:
        assert again.path == tree.path, "it was kept, and nobody was asked"


@pytest.mark.parametrize(
    ("path", "revision", "said"),
    [
        ("app", "nothing", "is no branch or tag"),
        ("app", "0" * 40, "cannot be fetched|not there|not in"),
        ("none", "", "is not there"),
    ],
)
async def test_what_is_not_there_is_told(
    sources: SourceFetcher, server: str, path: str, revision: str, said: str
) -> None:
    with pytest.raises(Failed, match=said) as caught:
        async with sources.tree(Git(f"{server}/{path}", revision), NOBODY):
            pytest.fail("it was fetched")
    assert caught.value.reason == Reason.SOURCE_UNAVAILABLE


@pytest.mark.parametrize("revision", ["--upload-pack=x", "-x", "a b", "a..b", "a\nb", "a:b"])
async def test_a_revision_that_is_none_reaches_no_git(
    sources: SourceFetcher, revision: str
) -> None:
    with pytest.raises(Rejected, match=r"spec\.source\.git\.revision"):
        await sources.resolve(Git("https://git.example/app", revision), NOBODY)


@pytest.mark.parametrize("secret", ["right", "token"])
async def test_a_private_repository_opens_to_its_secret(
    sources: SourceFetcher, private: GitOverHttp, secret: str
) -> None:
    async with sources.tree(Git(f"{private.url}/app", "main", secret=secret), KNOWN) as tree:
        assert read(tree.path) == FILES


@pytest.mark.parametrize(
    ("secret", "error", "reason", "said"),
    [
        ("", Failed, Reason.SOURCE_UNAVAILABLE, "name a Secret in spec.source.git.secretRef"),
        ("wrong", Rejected, Reason.INVALID_CREDENTIALS, "does not accept what the Secret wrong"),
        ("lines", Rejected, Reason.INVALID_CREDENTIALS, "is not one line of text"),
        ("useless", Rejected, Reason.INVALID_CREDENTIALS, "opens nothing"),
        ("key", Rejected, Reason.INVALID_CREDENTIALS, "no ssh URL"),
        ("absent", Missing, Reason.SECRET_NOT_FOUND, "absent"),
    ],
)
async def test_a_wrong_secret_is_told_and_never_shown(  # a table
    sources: SourceFetcher,
    private: GitOverHttp,
    secret: str,
    error: type[Error],
    reason: Reason,
    said: str,
) -> None:
    with pytest.raises(error, match=said) as caught:
        await sources.resolve(Git(f"{private.url}/app", secret=secret), KNOWN)
    assert caught.value.reason == reason
    assert "battery" not in caught.value.message


async def test_who_lost_his_access_gets_nothing_from_the_cache(
    sources: SourceFetcher, private: GitOverHttp
) -> None:
    source = Git(f"{private.url}/app", "main", secret="right")
    at = await sources.resolve(source, KNOWN)
    async with sources.tree(at, KNOWN):
        assert any(private.shown)
    private.allowed.clear()
    with pytest.raises(Rejected, match="does not accept"):
        async with sources.tree(at, KNOWN):
            pytest.fail("the cache gave it out")


@pytest.mark.row("S17")
async def test_a_redirect_takes_no_credential_and_no_request_elsewhere(
    sources: SourceFetcher, private: GitOverHttp, base: Path
) -> None:
    async with serve_git_over_http(base) as other:
        private.redirect = other.url
        with pytest.raises(Failed, match="redirects elsewhere"):
            await sources.resolve(Git(f"{private.url}/app", secret="right"), KNOWN)
        assert other.shown == []


@pytest.mark.row("S17")
async def test_a_submodule_elsewhere_gets_no_credential(
    sources: SourceFetcher, private: GitOverHttp, base: Path
) -> None:
    async with serve_git_over_http(base) as other:
        make_repository(base / "outer", FILES)
        _add_submodule(base / "outer", base / "app", f"{other.url}/app")
        source = Git(f"{private.url}/outer", "main", submodules=True, secret="right")
        with pytest.raises(Rejected, match="does not accept"):
            async with sources.tree(source, KNOWN):
                pytest.fail("it was fetched")
        assert not any(other.shown), "only requests without a credential came"


def _add_submodule(outer: Path, inner: Path, url: str) -> str:
    head = git(inner, "rev-parse", "HEAD")
    git(outer, "update-index", "--add", "--cacheinfo", f"160000,{head},lib")
    git(outer, "config", "--file=.gitmodules", "submodule.lib.path", "lib")
    git(outer, "config", "--file=.gitmodules", "submodule.lib.url", url)
    git(outer, "add", ".gitmodules")
    git(outer, "commit", "--quiet", "--message=submodule")
    return git(outer, "rev-parse", "HEAD")


@pytest.mark.parametrize("url", ["../app", "absolute"])
async def test_submodules_come_when_they_are_asked_for(
    sources: SourceFetcher, server: str, base: Path, url: str
) -> None:
    make_repository(base / "outer", FILES)
    _add_submodule(base / "outer", base / "app", url.replace("absolute", f"{server}/app"))
    inner = {f"lib/{name}": text for name, text in FILES.items()}
    async with sources.tree(Git(f"{server}/outer", submodules=True), NOBODY) as tree:
        found = read(tree.path)
        assert found.items() >= inner.items()
        assert not list(tree.path.rglob(".git"))
    async with sources.tree(Git(f"{server}/outer"), NOBODY) as tree:
        assert not read(tree.path).keys() & inner.keys()


@pytest.mark.row("S5")
@pytest.mark.parametrize(
    "url", ["/etc", "file:///etc", "ext::sh -c id", "--upload-pack=id", "-x", "a\x7fb"]
)
async def test_a_submodule_of_another_kind_is_refused(
    sources: SourceFetcher, server: str, base: Path, url: str
) -> None:
    make_repository(base / "outer", FILES)
    _add_submodule(base / "outer", base / "app", url)
    with pytest.raises(Failed, match="which is no https, http, git or ssh URL"):
        async with sources.tree(Git(f"{server}/outer", submodules=True), NOBODY):
            pytest.fail("it was fetched")


@pytest.mark.row("S5")
async def test_hooks_filters_and_links_of_a_repository_do_nothing_here(
    sources: SourceFetcher, server: str, base: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    outer = base / "evil"
    make_repository(
        outer,
        {
            ".gitattributes": "* filter=evil\n",
            "hooks/post-checkout": f"#!/bin/sh\ntouch {mark}\n",
            ".gitconfig": f'[filter "evil"]\n\tsmudge = touch {mark}\n',
        },
    )
    (outer / "out").symlink_to("/etc")
    git(outer, "add", ".")
    git(outer, "commit", "--quiet", "--message=link")
    async with sources.tree(Git(f"{server}/evil"), NOBODY) as tree:
        assert (tree.path / "out").is_symlink(), "a link stays a link"
    assert not mark.exists()


@pytest.mark.row("S1")
@pytest.mark.parametrize("scheme", ["http", "git"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "169.254.169.254"])
async def test_a_repository_inside_is_refused(cache: SourceCache, scheme: str, host: str) -> None:
    sources = SourceFetcher(cache)
    with pytest.raises(Rejected, match="may not be fetched from"):
        await sources.resolve(Git(f"{scheme}://{host}/app"), NOBODY)


async def test_a_repository_that_is_too_large_is_refused_before_it_is_written(
    cache: SourceCache, server: str, base: Path
) -> None:
    commit(base / "app", {"zeros": "0" * 300_000})
    sources = SourceFetcher(cache, GitFetcher(HERE, Caps(out=200_000)))
    with pytest.raises(Failed, match="is too large"):
        async with sources.tree(Git(f"{server}/app"), NOBODY):
            pytest.fail("it was fetched")
    assert await cache.usage() == 0


@asynccontextmanager
async def silent() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A server that takes a connection and says nothing."""
    came = asyncio.Event()

    def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        taken.append(writer)

    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/app", came
    finally:
        for writer in taken:
            writer.close()
        server.close()


def children() -> set[str]:
    """The processes whose parent we are."""
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


async def test_a_cancelled_fetch_leaves_no_process_and_no_files(
    sources: SourceFetcher, tmp_path: Path
) -> None:
    before = children()

    async def use(url: str) -> None:
        async with sources.tree(Git(url, commit="1" * 40), NOBODY):
            pytest.fail("it was fetched")

    async with silent() as (url, came):
        task = asyncio.create_task(use(url))
        await came.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert children() <= before
    assert list((tmp_path / "cache" / "temp").iterdir()) == []
