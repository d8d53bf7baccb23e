"""A fixture: where cases of trouble are played one after the other (tests/faults)."""

from collections.abc import AsyncIterator

import pytest_asyncio

import devstack
from tests.faults.scene import Lane, lanes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(stack: devstack.Stack) -> AsyncIterator[Lane]:
    """One daemon, one namespace, and operators that begin in no time; for tests of that loop."""
    async with lanes(stack, 1) as [made]:
        yield made
