"""The servers' programs: found on the machine, or built from pinned Go modules into a cache.

A program's place in the cache is named by a digest over its go.mod, go.sum and build flags, so a
second run builds nothing, and a new pin never meets an old program.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).parent / "tools"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imagewright"
FLAGS = ("-mod=readonly", "-buildvcs=false", "-trimpath")
OLDEST_GO = (1, 26)
Say = Callable[[str], None]


class MissingProgramError(Exception):
    """A program is not there and could not be made; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program: which of our modules pins it, its package, and how long a first build takes."""

    name: str
    module: str
    package: str
    minutes: str
    version: str = ""
    """Where set, `NAME --version` on PATH may be used instead if it says at least this."""
    tags: str = ""
    """Go build tags."""
    cgo: bool = False
    """Whether it is linked against C libraries."""


PROGRAMS: tuple[Program, ...] = (
    Program("crane", "crane", "github.com/google/go-containerregistry/cmd/crane", "half a minute"),
    Program("etcd", "etcd", "go.etcd.io/etcd/server/v3", "half a minute"),
    Program(
        "registry",
        "registry",
        "github.com/distribution/distribution/v3/cmd/registry",
        "a minute",
        "3.1",
    ),
    Program(
        "buildkitd", "buildkit", "github.com/moby/buildkit/cmd/buildkitd", "2 minutes", "0.32"
    ),
    Program(
        "buildctl", "buildkit", "github.com/moby/buildkit/cmd/buildctl", "some seconds", "0.32"
    ),
    Program("docker-buildx", "buildx", "github.com/docker/buildx/cmd/buildx", "2 minutes"),
    Program("helm", "helm", "helm.sh/helm/v4/cmd/helm", "2 minutes"),
    Program("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", "4 minutes"),
)
CONTROLLERS = Program(
    "kube-controller-manager",
    "kubernetes",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
    "a minute",
)
"""Of no stack; only what becomes of a namespace that is deleted needs it."""


def binaries(say: Say) -> dict[str, Path]:
    """Every program by name, built where it is missing. Raises MissingProgramError."""
    found = {program.name: find(program) for program in PROGRAMS}
    missing = [program for program in PROGRAMS if found[program.name] is None]
    for number, program in enumerate(missing, 1):
        say(f"[{number}/{len(missing)}] building {program.name} (first time: {program.minutes}) …")
        began = time.monotonic()
        found[program.name] = build(program)
        say(f"[{number}/{len(missing)}] {program.name} is there: {time.monotonic() - began:.0f} s")
    there = {name: path for name, path in found.items() if path is not None}
    return {**there, "kubectl": kubectl()}


def controllers(say: Say) -> Path:
    """The kube-controller-manager, built where it is missing. Raises MissingProgramError."""
    found = find(CONTROLLERS)
    if found is None:
        say(f"building {CONTROLLERS.name} (first time: {CONTROLLERS.minutes}) …")
        found = build(CONTROLLERS)
    return found


def find(program: Program) -> Path | None:
    """The program: named by the environment, in the cache, or new enough on PATH."""
    named = [os.environ.get("KUBEBUILDER_ASSETS"), os.environ.get("IMAGEWRIGHT_BIN")]
    for path in [Path(folder) / program.name for folder in named if folder] + [cached(program)]:
        if path.is_file():
            return path
    on_path = shutil.which(program.name) if program.version else None
    return Path(on_path) if on_path and _new_enough(on_path, program.version) else None


def cached(program: Program) -> Path:
    """Where the program lies in the cache, once it is built."""
    how = (program.package, FLAGS, program.tags) if program.tags else (program.package, FLAGS)
    digest = hashlib.sha256(repr(how).encode())
    for name in ("go.mod", "go.sum"):
        digest.update((TOOLS / program.module / name).read_bytes())
    return CACHE / "bin" / f"{program.module}-{digest.hexdigest()[:16]}" / program.name


def build(program: Program) -> Path:
    """Build the program into the cache; never twice at once. Raises MissingProgramError."""
    target = cached(program)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.parent / "lock"):
        if target.is_file():
            return target
        log, fresh = target.with_suffix(".log"), target.with_suffix(".new")
        flags = [*FLAGS, *([f"-tags={program.tags}"] if program.tags else [])]
        command = [str(go()), "build", *flags, "-ldflags", _link_flags(program), "-o", str(fresh)]
        with log.open("wb") as output:
            ended = subprocess.run(
                [*command, program.package],
                cwd=TOOLS / program.module,
                env={**os.environ, "CGO_ENABLED": str(int(program.cgo)), "GOTOOLCHAIN": "local"},
                stdout=output,
                stderr=output,
                check=False,
            )
        if ended.returncode:
            raise MissingProgramError(
                f"{program.name} could not be built (the whole log is in {log}): "
                f"{log.read_text()[-2000:]}"
            )
        fresh.rename(target)
    return target


def go() -> Path:
    """A Go toolchain that is new enough. Raises MissingProgramError."""
    beside = Path(sys.executable).with_name("go")
    for path in (shutil.which("go"), str(beside) if beside.exists() else None):
        if path and _go_version(path) >= OLDEST_GO:
            return Path(path)
    raise MissingProgramError(
        "Building the servers needs Go 1.26 or later: run scripts/setup, which brings one, or "
        "install Go."
    )


def kubectl() -> Path:
    """The wheel's kubectl beside Python, or the one on PATH. Raises MissingProgramError."""
    beside = Path(sys.executable).with_name("kubectl")
    if beside.exists():
        return beside
    on_path = shutil.which("kubectl")
    if on_path:
        return Path(on_path)
    raise MissingProgramError("kubectl is missing: run scripts/setup, which installs it.")


def environment(found: Mapping[str, Path]) -> str:
    """A PATH on which the programs come first."""
    folders = dict.fromkeys(str(path.parent) for path in found.values())
    return os.pathsep.join([*folders, os.environ.get("PATH", "")])


def _link_flags(program: Program) -> str:
    flags = "-s -w"
    if program.module == "kubernetes":
        pinned = re.search(r"k8s.io/kubernetes (v\S+)", _go_mod(program))
        flags += f" -X k8s.io/component-base/version.gitVersion={pinned[1] if pinned else ''}"
    if program.module == "docker":
        pinned = re.search(r"github.com/moby/moby/v2 v(\S+)", _go_mod(program))
        flags += f" -X github.com/moby/moby/v2/dockerversion.Version={pinned[1] if pinned else ''}"
    if program.module == "buildkit":
        # A daemon that does not say its version could not be asked what it is able to do.
        pinned = re.search(r"github.com/moby/buildkit (v\S+)", _go_mod(program))
        flags += f" -X github.com/moby/buildkit/version.Version={pinned[1] if pinned else ''}"
    return flags


def _go_mod(program: Program) -> str:
    return (TOOLS / program.module / "go.mod").read_text()


def _go_version(path: str) -> tuple[int, ...]:
    said = subprocess.run([path, "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0,)


def _new_enough(path: str, version: str) -> bool:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"v(\d+)\.(\d+)", said)
    oldest = tuple(int(part) for part in version.split("."))
    return found is not None and (int(found[1]), int(found[2])) >= oldest


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock of a process that is killed goes with it."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
