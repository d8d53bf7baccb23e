"""A context as a tar: what is in it, and what is not."""

import errno
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from imagewright.builders.archive import OWN_DOCKERFILE, packed
from imagewright.clients.buildkit.globs import PatternError
from imagewright.clients.buildkit.trees import Directory, Files, Tree


async def unpacked(
    tree: Tree, dockerfile: str = "Dockerfile", inline: str = ""
) -> tarfile.TarFile:
    """The archive, as its receiver reads it."""
    content = b"".join([piece async for piece in packed(tree, dockerfile, inline)])
    assert len(content) % tarfile.BLOCKSIZE == 0
    return tarfile.open(fileobj=io.BytesIO(content))


def text_of(archive: tarfile.TarFile, name: str) -> str:
    """What a file holds."""
    file = archive.extractfile(name)
    assert file is not None
    return file.read().decode()


IGNORED: dict[str, tuple[str, set[str]]] = {
    "no line": ("", {"Dockerfile", ".dockerignore", "a", "d", "d/b"}),
    "a file": ("a\n", {"Dockerfile", ".dockerignore", "d", "d/b"}),
    "a folder": ("d\n", {"Dockerfile", ".dockerignore", "a"}),
    "all but one": ("*\n!d/b\n", {"Dockerfile", ".dockerignore", "d", "d/b"}),
    "the Dockerfile itself": (
        "Dockerfile\n.dockerignore\n",
        {"Dockerfile", ".dockerignore", "a", "d", "d/b"},
    ),
}


@pytest.mark.row("B49")
@pytest.mark.parametrize(("lines", "left"), IGNORED.values(), ids=IGNORED)
async def test_the_ignore_file_is_applied_and_what_the_engine_reads_is_spared(
    lines: str, left: set[str]
) -> None:
    files = {"Dockerfile": b"", "a": b"", "d/b": b"", ".dockerignore": lines.encode()}
    archive = await unpacked(Files(files))
    assert set(archive.getnames()) == left


async def test_an_ignore_file_beside_the_dockerfile_comes_first() -> None:
    files = {"x.Dockerfile": b"", "x.Dockerfile.dockerignore": b"a", ".dockerignore": b"b"}
    archive = await unpacked(Files({**files, "a": b"", "b": b""}), "x.Dockerfile")
    assert "b" in archive.getnames()
    assert "a" not in archive.getnames()


async def test_a_dockerfile_of_the_spec_is_put_in_and_kept_out_of_the_context() -> None:
    files = {".dockerignore": b"a\n", "a": b"", "Dockerfile": b"not this one"}
    archive = await unpacked(Files(files), inline="FROM scratch\n")
    assert set(archive.getnames()) == {"Dockerfile", OWN_DOCKERFILE, ".dockerignore"}
    assert text_of(archive, OWN_DOCKERFILE) == "FROM scratch\n"
    assert text_of(archive, ".dockerignore").split() == ["a", ".dockerignore", OWN_DOCKERFILE]


async def test_kinds_modes_and_links_are_kept_and_all_belongs_to_root(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir(mode=0o750)
    tool = tmp_path / "bin" / "tool"
    tool.write_bytes(b"x" * 3000)
    os.chown(tool, 1000, 1000)
    tool.chmod(0o4755)
    os.link(tool, tmp_path / "same")
    (tmp_path / "link").symlink_to("bin/tool")
    os.mkfifo(tmp_path / "pipe")
    archive = await unpacked(Directory(tmp_path, xattrs=False))
    found = {info.name: info for info in archive.getmembers()}
    assert found["bin"].isdir()
    assert stat.S_IMODE(found["bin/tool"].mode) == 0o4755
    assert found["same"].islnk()
    assert found["same"].linkname == "bin/tool"
    assert found["link"].issym()
    assert found["pipe"].isfifo()
    assert {(info.uid, info.gid) for info in found.values()} == {(0, 0)}
    assert text_of(archive, "bin/tool") == "x" * 3000


async def test_long_and_foreign_names_are_kept() -> None:
    names = ["n" * 200 + "/" + "m" * 100, "grüße/日本"]
    archive = await unpacked(Files(dict.fromkeys(names, b"x")))
    assert set(names) <= set(archive.getnames())


async def test_a_file_that_shrinks_or_grows_meanwhile_shifts_nothing(tmp_path: Path) -> None:
    class Moving(Directory):
        """Changes each file just before it is read."""

        def open(self, path: str) -> io.FileIO:
            file = tmp_path / path
            if path not in "ab":
                raise FileNotFoundError(errno.ENOENT, path)
            file.write_bytes(b"y" * (10 if path == "a" else 5000))
            return io.FileIO(file)

    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x" * 1000)
    archive = await unpacked(Moving(tmp_path, xattrs=False))
    assert [(info.name, info.size) for info in archive.getmembers()] == [("a", 1000), ("b", 1000)]
    assert text_of(archive, "b") == "y" * 1000


async def test_a_large_context_comes_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(5 << 20))
    sizes = [len(piece) async for piece in packed(Directory(tmp_path), "Dockerfile")]
    assert len(sizes) >= 5
    assert max(sizes) < 3 << 20


async def test_a_bad_pattern_is_an_error() -> None:
    with pytest.raises(PatternError):
        await unpacked(Files({".dockerignore": b"[\n", "a": b""}))
