"""python -m devstack build|up|down|status|env|doctor|engine."""

import argparse
import shlex
import sys
import time

from devstack.binaries import (
    CONTROLLERS,
    PROGRAMS,
    MissingProgramError,
    binaries,
    controllers,
    environment,
    find,
    kubectl,
)
from devstack.debian import PACKAGES, install_missing, program
from devstack.engine_programs import NEW, new_programs, old_dockerd, old_programs
from devstack.engines import KINDS
from devstack.server import ServerError
from devstack.stack import RUN, Stack, down, load, up


def main() -> int:
    """Run one command; the exit status says whether it was done."""
    parser = argparse.ArgumentParser(prog="devstack", description=__doc__)
    parser.add_argument("command", choices=[*COMMANDS, "engine"])
    parser.add_argument("kind", nargs="?", choices=sorted(KINDS), help="of the engine")
    parser.add_argument("--name", default="default", help="which stack; several can run")
    options = parser.parse_args()
    try:
        if options.command == "engine":
            return _engine(options.name, options.kind or "new")
        return COMMANDS[options.command](options.name)
    except (MissingProgramError, ServerError, RuntimeError) as error:
        print(f"devstack: {error}", file=sys.stderr)
        return 1


def _up(name: str) -> int:
    began = time.monotonic()
    stack = up(name)
    print(f"{len(stack.servers)} servers are up after {time.monotonic() - began:.1f} s.")
    print(f'Use them: eval "$({sys.executable} -m devstack env --name {name})"')
    return 0


def _down(name: str) -> int:
    down(name)
    print(f"The stack {name} is down.")
    return 0


def _status(name: str) -> int:
    stack = _known(name)
    if stack is None:
        return 1
    answers = stack.answers()
    for part, server in stack.servers.items():
        state = "up" if answers[part] else "hung" if server.alive else "down"
        print(f"{part:16} {server.pid:8} {state:5} {server.log}")
    return 0 if all(answers.values()) else 1


def _env(name: str) -> int:
    stack = _known(name)
    if stack is None:
        return 1
    values = {
        "KUBECONFIG": stack.kubeconfig,
        "IMAGEWRIGHT_KUBECONFIG": stack.operator_kubeconfig,
        "IMAGEWRIGHT_BUILDKIT": stack.buildkit,
        "IMAGEWRIGHT_REGISTRY": stack.registry,
        "IMAGEWRIGHT_AUDIT_LOG": stack.audit_log,
        "PATH": environment(stack.binaries),
    }
    for variable, value in values.items():
        print(f"export {variable}={shlex.quote(str(value))}")
    return 0


def _engine(name: str, kind: str) -> int:
    stack = _known(name)
    if stack is None:
        return 1
    engine = stack.engine(kind, lambda line: print(line, file=sys.stderr))
    print(engine.address)
    if engine.certificates:
        print(f"A client's certificates are in {engine.certificates}.", file=sys.stderr)
    return 0


def _build(_: str) -> int:
    """Every program that a stack may need, so that no test waits for one."""
    install_missing(print)
    binaries(print)
    controllers(print)
    new_programs(print)
    old_programs(print)
    return 0


def _doctor(_: str) -> int:
    missing = 0
    for one in (*PROGRAMS, CONTROLLERS, *NEW):
        path = find(one)
        print(f"{one.name:16} {path or 'will be built from ' + one.package}")
    print(f"{'kubectl':16} {kubectl()}")
    print(f"{'old dockerd':16} {old_dockerd() or 'will be unpacked from Debian docker.io'}")
    for name, package in PACKAGES.items():
        path = program(name)
        missing += path is None
        print(f"{name:16} {path or 'missing: install the Debian package ' + package}")
    return 1 if missing else 0


def _known(name: str) -> Stack | None:
    """The stack, if it was started; its programs are where `up` found them."""
    if not (RUN / name / "state.json").exists():
        print(
            f"devstack: the stack {name} is not up: run `python -m devstack up`.", file=sys.stderr
        )
        return None
    stack = load(name, binaries(lambda line: print(line, file=sys.stderr)))
    if stack is None:
        print(
            f"devstack: the stack {name} is half up: run `up` again, or `down`.", file=sys.stderr
        )
    return stack


COMMANDS = {
    "build": _build,
    "up": _up,
    "down": _down,
    "status": _status,
    "env": _env,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
