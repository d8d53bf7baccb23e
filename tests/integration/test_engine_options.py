"""Options of builds on real engines: what steps see of them, and what is refused."""

from dataclasses import replace

import pytest

from devstack import Stack
from imagewright.clients.engine.auth import FOR_BUILD, Login
from imagewright.clients.engine.build import BUILDKIT, CLASSIC, Build
from imagewright.clients.engine.engine import Engine
from imagewright.clients.engine.errors import EngineError, Refused, StreamError
from tests.support.engines import built, pieces, posted, tar, unique

BOTH = [CLASSIC, BUILDKIT]
SCRATCH = "FROM scratch\nCOPY Dockerfile /\n"
USERNAME, PASSWORD = "builder", "open-sesame-devstack"


async def seen(engine: Engine, build: Build, base: str, command: str) -> str:
    """What a step of a classic build prints."""
    heard = await built(engine, build, f"FROM {base}\n{unique()}RUN {command}\n")
    _, _, rest = "".join(heard.pieces).rpartition("---> Running in ")
    return rest.partition("\n")[2].partition("intermediate container")[0]


@pytest.mark.row("B22")
async def test_limits_reach_the_steps_of_the_classic_builder(engine: Engine, base: str) -> None:
    limits: dict[str, int | str] = {
        "memory": 64 << 20,
        "memswap": 64 << 20,
        "cpushares": 512,
        "cpusetcpus": "0",
    }
    command = (
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.shares "
        "/sys/fs/cgroup/cpuset/cpuset.cpus"
    )

    found = await seen(engine, Build(limits=limits), base, command)
    assert found.split()[:3] == [str(64 << 20), "512", "0"]
    quota = Build(limits={"cpuperiod": 50_000, "cpuquota": 25_000})
    command = "cat /sys/fs/cgroup/cpu/cpu.cfs_period_us /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
    found = await seen(engine, quota, base, command)
    assert found.split()[:2] == ["50000", "25000"]


@pytest.mark.row("B24")
async def test_ulimits_and_shared_memory_reach_the_steps(
    engine: Engine, base: str, kind: str
) -> None:
    classic = Build(ulimits=(("nofile", 123, 456),), shm_size=8 << 20)
    command = "echo $(ulimit -Sn) $(ulimit -Hn) $(df -k /dev/shm | tail -n 1)"
    found = (await seen(engine, classic, base, command)).split()
    assert found[:2] == ["123", "456"]
    assert found[3] == "8192"

    lines = f'FROM {base}\n{unique()}RUN test "$(ulimit -Sn)" = 123\n'
    build = replace(classic, version=2)
    if kind == "old":
        with pytest.raises(EngineError, match="reach a BuildKit build from API"):
            await built(engine, build, lines)
    else:
        assert (await built(engine, build, lines)).result.image_id


@pytest.mark.row("B27")
@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize(
    ("network", "test"),
    [
        pytest.param("none", '"$(ls /sys/class/net)" = lo', id="none"),
        pytest.param(
            "host", "-e /sys/class/net/docker0 -o $(ls /sys/class/net | wc -l) -gt 2", id="host"
        ),
        pytest.param("default", '"$(ls /sys/class/net | wc -l)" = 2', id="default"),
    ],
)
async def test_networks(engine: Engine, base: str, version: int, network: str, test: str) -> None:
    lines = f"FROM {base}\n{unique()}RUN ls /sys/class/net; test {test}\n"

    assert (await built(engine, Build(version=version, network=network), lines)).result.image_id


@pytest.mark.row("B28")
async def test_buildkit_knows_no_network_by_name(engine: Engine) -> None:
    with pytest.raises(Refused, match='network mode "nosuchnet" not supported') as caught:
        await built(engine, Build(version=2, network="nosuchnet"), SCRATCH)
    assert caught.value.status == 500


@pytest.mark.row("B29")
@pytest.mark.parametrize("version", BOTH)
async def test_extra_hosts_can_be_looked_up(engine: Engine, base: str, version: int) -> None:
    build = Build(version=version, extra_hosts=(("db.test", "10.1.2.3"), ("six.test", "fd00::1")))
    lines = f"FROM {base}\n{unique()}RUN grep '10.1.2.3.*db.test' /etc/hosts\n"

    assert (
        await built(engine, build, f"{lines}RUN grep 'fd00::1.*six' /etc/hosts\n")
    ).result.image_id


REFUSED = [
    pytest.param(
        {"version": "2", "extrahosts": "foo"},
        {500},
        "invalid host foo",
        marks=pytest.mark.row("B30"),
        id="a host without an address",
    ),
    pytest.param(
        {"shmsize": "abc"},
        {500},
        'parsing "abc"',
        marks=pytest.mark.row("B25"),
        id="a size that is no number",
    ),
    pytest.param(
        {"securityopt": "x"},
        {400},
        "security options",
        marks=pytest.mark.row("B31"),
        id="security options of classic",
    ),
    pytest.param(
        {"securityopt": "x", "version": "2"},
        {400},
        "security options",
        marks=pytest.mark.row("B31"),
        id="security options of BuildKit",
    ),
    pytest.param(
        {"isolation": "foo"},
        {400},
        "nsupported isolation",
        marks=pytest.mark.row("B32"),
        id="an isolation",
    ),
    pytest.param(
        {"buildargs": "[1]"}, {400}, "build args", marks=pytest.mark.row("B33"), id="arguments"
    ),
    pytest.param({"labels": "["}, {400}, "labels", marks=pytest.mark.row("B33"), id="labels"),
    pytest.param({"ulimits": "{"}, {400}, "ulimit", marks=pytest.mark.row("B33"), id="ulimits"),
    pytest.param(
        {"cachefrom": "x"}, {400, 500}, "invalid char", marks=pytest.mark.row("B33"), id="caches"
    ),
    pytest.param(
        {"outputs": "x", "version": "2"},
        {400, 500},
        "invalid char",
        marks=pytest.mark.row("B33"),
        id="outputs",
    ),
    pytest.param(
        {"platform": "a/b/c/d/e"}, {400}, "", marks=pytest.mark.row("B34"), id="a platform"
    ),
    pytest.param(
        {"platform": "linux/amd64,linux/arm64"},
        {400},
        "",
        marks=pytest.mark.row("B34"),
        id="several platforms",
    ),
    pytest.param(
        {"outputs": '[{"Type":"moby"},{"Type":"moby"}]', "version": "2"},
        {500},
        "multiple outputs not supported",
        marks=pytest.mark.row("B35"),
        id="two outputs",
    ),
]


@pytest.mark.parametrize(("query", "statuses", "text"), REFUSED)
async def test_a_malformed_option_is_refused(
    engine: Engine, query: dict[str, str], statuses: set[int], text: str
) -> None:
    answer = await posted(engine, "/build", query.items(), tar({"Dockerfile": SCRATCH}))

    assert answer.status in statuses
    assert text in answer.json()["message"]


@pytest.mark.parametrize(
    "query",
    [
        pytest.param({"memory": "abc"}, marks=pytest.mark.row("B26"), id="a memory limit"),
        pytest.param(
            {"outputs": '[{"Type":"a"},{"Type":"b"}]'},
            marks=pytest.mark.row("B35"),
            id="two outputs of classic",
        ),
    ],
)
async def test_a_malformed_option_is_overlooked(engine: Engine, query: dict[str, str]) -> None:
    answer = await posted(engine, "/build", query.items(), tar({"Dockerfile": SCRATCH}))

    assert b"Successfully built" in answer.body


@pytest.fixture
async def private(engine: Engine, stack: Stack, base: str, name: str) -> str:
    """An image that only the right login can pull, and that the engine has no longer."""
    repository = f"{stack.registries['htpasswd']}/{name}"
    await built(engine, Build(tags=(f"{repository}:1",)), f"FROM {base}\n{unique()}")
    await engine.push(repository, "1", Login(USERNAME, PASSWORD))
    await engine.remove(f"{repository}:1")
    return f"{repository}:1"


@pytest.mark.row("A1", "A2")
async def test_a_login_for_the_base_image_is_for_the_classic_builder(
    engine: Engine, private: str
) -> None:
    host = private.partition("/")[0]
    lines = f"FROM {private}\n{unique()}"
    build = Build(registries={host: Login(USERNAME, PASSWORD)})
    header = {"Content-Type": "application/x-tar", **build.headers()}
    buildkit = await posted(
        engine, "/build", [("version", "2")], tar({"Dockerfile": lines}), header
    )

    assert b"errorDetail" in buildkit.body
    with pytest.raises(EngineError):
        await built(engine, Build(), lines)
    assert (await built(engine, build, lines)).result.image_id


@pytest.mark.row("A3")
async def test_only_one_way_of_writing_a_login_is_understood(engine: Engine, private: str) -> None:
    host = private.partition("/")[0]
    login = Login(USERNAME, PASSWORD)
    # A host that nobody asks, so that there is padding, and a letter that the alphabets differ in.
    headers = (
        Build(registries={host: login, "???" + "x" * n: login}).headers()[FOR_BUILD]
        for n in range(3)
    )
    good = next(header for header in headers if header.endswith("="))
    standard = good.replace("-", "+").replace("_", "/")
    assert standard != good
    context = tar({"Dockerfile": f"FROM {private}\n{unique()}"})

    async def passes(header: str) -> bool:
        headers = {"Content-Type": "application/x-tar", FOR_BUILD: header}
        answer = await posted(
            engine, "/build", [("nocache", "1"), ("pull", "1")], context, headers
        )
        return b"Successfully built" in answer.body

    assert await passes(good)
    assert not await passes(good.rstrip("="))
    assert not await passes(standard)


async def test_a_failed_step_is_in_the_log_of_either_builder(engine: Engine, base: str) -> None:
    with pytest.raises(StreamError, match="3"):
        await engine.run(
            Build(version=2), pieces(tar({"Dockerfile": f"FROM {base}\n{unique()}RUN exit 3\n"}))
        )
