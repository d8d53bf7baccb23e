"""What every test gets: fixtures, row marks, and an event loop in which nothing may block."""

from collections.abc import Iterator

import grpc.aio
import pytest
import structlog
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.support.rows",
    "tests.support.stack",
    "tests.support.own_api",
    "tests.support.worker_pods",
    "tests.support.worker_player",
    "tests.support.pruning",
    "tests.support.engines",
    "tests.support.filetree",
    "tests.support.workshop",
    "tests.support.lane",
]

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def logs_are_plain() -> None:
    """The default for terminals reads source files to draw a trace, in the loop."""
    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
    )


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[BlockBuster]:
    """A blocking call of ours inside the event loop fails the test that made it."""
    with blockbuster_ctx("imagewright") as blockbuster:
        yield blockbuster


@pytest.fixture(autouse=True)
def unit_tests_are_quick(request: pytest.FixtureRequest) -> None:
    """A unit test that takes longer than 2 s is none; pytest-timeout ends it."""
    if "/tests/unit/" in str(request.path) and not request.node.get_closest_marker("timeout"):
        request.node.add_marker(pytest.mark.timeout(2))


# The library ends its threads, and waits for them, whenever its last channel is collected: in the
# middle of a test that must not block. So it is kept from ever having none.
grpc.aio.init_grpc_aio()
