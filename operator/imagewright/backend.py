"""The build backend: builders put together, in the order that the container engine's has.

Names are parsed before anything is sent, so a bad one ends the build at once. Then the builder is
chosen, and it builds. BuildKit's exporter names and pushes by itself, in one step with the build.
"""

from collections.abc import Mapping
from dataclasses import replace

from imagewright.api.reason import Reason
from imagewright.domain.outcome import Built
from imagewright.domain.plan import Git, Order, Plan
from imagewright.domain.reference import InvalidReference, parse_all
from imagewright.ports import Builder, Rejected, Report

BUILDKIT = "buildkit"


class Backend:
    """Builds plans on one worker. Raises ValueError at once where it has no builder."""

    def __init__(self, builders: Mapping[str, Builder]) -> None:
        if BUILDKIT not in builders:
            raise ValueError("A backend needs a builder named buildkit: give it one.")
        self._builders = dict(builders)

    async def resolve(self, plan: Plan) -> Plan:
        """The plan with its git revision resolved to a commit; any other plan as it is.

        Raises Failed where there is no such revision.
        """
        if not isinstance(plan.source, Git) or plan.source.commit:
            return plan
        return replace(plan, source=await self._builder().resolve(plan.source))

    async def build(self, ref: str, plan: Plan, report: Report) -> Built:
        """Build `plan` under the id `ref`, and push it under each of its names.

        Raises Rejected, Failed or Unavailable; cancelled by cancelling the task.
        """
        try:
            names = parse_all(plan.images)
        except InvalidReference as error:
            raise Rejected(str(error), Reason.INVALID_REFERENCE) from error
        return await self._builder().build(Order(ref, plan, names), report)

    def _builder(self) -> Builder:
        return self._builders[BUILDKIT]
