"""What a builder would leave out in silence: it is refused instead, by the name of its field."""

from collections.abc import Callable
from dataclasses import dataclass

from imagewright.domain.plan import BUILDKIT, CLASSIC, Form, Plan


@dataclass(frozen=True, slots=True)
class Gap:
    """A field that a builder does not know, when a plan uses it, and what to do about it."""

    field: str
    used: Callable[[Plan], bool]
    advice: str


_USE_BUILDKIT = "build with builder: buildkit, or leave it out"
GAPS: dict[str, tuple[Gap, ...]] = {
    CLASSIC: (
        Gap("spec.secrets", lambda plan: bool(plan.secrets), _USE_BUILDKIT),
        Gap("spec.ssh", lambda plan: bool(plan.ssh), _USE_BUILDKIT),
        Gap("spec.annotations", lambda plan: bool(plan.annotations), _USE_BUILDKIT),
        Gap("spec.cache.to", lambda plan: bool(plan.cache_to), _USE_BUILDKIT),
        Gap("spec.output", lambda plan: shape_of(plan.form) != Form(), _USE_BUILDKIT),
        Gap(
            "spec.attestations",
            lambda plan: plan.form.provenance != "none" or plan.form.sbom,
            _USE_BUILDKIT,
        ),
        Gap(
            "more than one of spec.platforms",
            lambda plan: len(plan.platforms) > 1,
            "name one, or build with builder: buildkit",
        ),
    ),
    BUILDKIT: (
        Gap(
            "spec.limits",
            lambda plan: bool(plan.sandbox.limits),
            "build with builder: classic, or leave it out",
        ),
        Gap(
            "spec.squash without a name in spec.images",
            lambda plan: plan.squash and not plan.images,
            "layers are merged in the repository of the first name",
        ),
        Gap(
            "spec.squash together with more than one of spec.platforms",
            lambda plan: plan.squash and len(plan.platforms) > 1,
            "name one platform, or leave squash out",
        ),
        Gap(
            "spec.squash together with a spec.output.compression that is not gzip",
            lambda plan: plan.squash and plan.form.compression != "gzip",
            "a merged layer is packed by gzip: leave one of the two out",
        ),
        Gap(
            "spec.squash together with spec.attestations",
            lambda plan: plan.squash and (plan.form.provenance != "none" or plan.form.sbom),
            "what is attested would no longer be the image: leave one of the two out",
        ),
    ),
}


def unsupported(plan: Plan) -> str:
    """What the plan's builder cannot do, in a sentence; empty where it can do all."""
    for gap in GAPS[plan.builder]:
        if gap.used(plan):
            return f"The {plan.builder} builder does not know {gap.field}: {gap.advice}."
    return ""


def shape_of(form: Form) -> Form:
    """The form without its attestations."""
    return Form(form.compression, form.source_date_epoch, form.rewrite_timestamp)
