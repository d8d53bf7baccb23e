"""An Order as BuildKit's Solve: what the frontend is told, and where the image goes."""

from imagewright.builders.context import Context
from imagewright.clients.buildkit import control
from imagewright.domain.outcome import Built, Pushed
from imagewright.domain.plan import Order, Plan


def request_of(order: Order, context: Context, session: str) -> control.Solve:
    """The Solve of an order, without exports."""
    plan = order.plan
    return control.Solve(
        ref=order.ref,
        attrs={**attributes(plan), **context.attrs},
        inputs=context.inputs,
        checksums=context.checksums,
        session=session,
        entitlements=("network.host",) if plan.sandbox.network == "host" else (),
        cache_imports=tuple(control.Cache("registry", {"ref": ref}) for ref in plan.cache_from),
        cache_exports=tuple(
            control.Cache("registry", {"ref": cache.ref, "mode": cache.mode})
            if cache.ref
            else control.Cache("inline")
            for cache in plan.cache_to
        ),
    )


def attributes(plan: Plan) -> dict[str, str]:
    """What the Dockerfile frontend is told, context apart. Every key is ours or checked."""
    attrs = {f"build-arg:{name}": value for name, value in plan.build_args.items()}
    attrs |= {f"label:{name}": value for name, value in plan.labels.items()}
    if plan.target:
        attrs["target"] = plan.target
    if plan.platforms:
        attrs["platform"] = ",".join(plan.platforms)
    if plan.pull:
        attrs["image-resolve-mode"] = "pull"
    if plan.no_cache:
        attrs["no-cache"] = ""
    if plan.form.source_date_epoch is not None:
        attrs["build-arg:SOURCE_DATE_EPOCH"] = str(plan.form.source_date_epoch)
    if plan.form.provenance != "none":
        attrs["attest:provenance"] = f"mode={plan.form.provenance}"
    if plan.form.sbom:
        attrs["attest:sbom"] = ""
    return attrs | _sandbox(plan)


def _sandbox(plan: Plan) -> dict[str, str]:
    """What RUN sees (frontend/dockerui/config.go and attr.go name the keys and their forms)."""
    sandbox, attrs = plan.sandbox, {}
    if sandbox.network != "default":
        attrs["force-network-mode"] = sandbox.network
    if sandbox.extra_hosts:
        attrs["add-hosts"] = ",".join(f"{name}={ip}" for name, ip in sandbox.extra_hosts)
    if sandbox.shm_size:
        attrs["shm-size"] = str(sandbox.shm_size)
    if sandbox.ulimits:
        attrs["ulimit"] = ",".join(f"{one.name}={one.soft}:{one.hard}" for one in sandbox.ulimits)
    return attrs


def pushed_by_daemon(order: Order) -> tuple[control.Export, ...]:
    """The image exporter, pushing under every name; nothing where there is no name.

    An image that is to be squashed gets no name yet: it is pushed by its digest only.
    """
    if not order.names:
        return ()
    form = order.plan.form
    if order.plan.squash:
        attrs = {"name": order.names[0].name, "push": "true", "push-by-digest": "true"}
    else:
        attrs = {"name": ",".join(str(name) for name in order.names), "push": "true"}
    if form.compression != "gzip":
        attrs |= {"compression": form.compression, "force-compression": "true"}
    if form.rewrite_timestamp:
        attrs["rewrite-timestamp"] = "true"
    attrs |= {f"annotation.{key}": value for key, value in order.plan.annotations.items()}
    return (control.Export("image", attrs),)


def kept_by_engine(_: Order) -> tuple[control.Export, ...]:
    """The engine's own exporter: into its image store, without a name."""
    return (control.Export("moby", {}),)


def built_of(order: Order, answer: dict[str, str], base: tuple[str, ...]) -> Built:
    """The exporter's answer in our words."""
    digest = answer.get("containerimage.digest", "")
    image_id = answer.get("containerimage.config.digest", "")
    if order.plan.squash:
        return Built(digest, image_id, repository=order.names[0].name, base=base)
    pushed = tuple(
        Pushed(name.name, name.tag, digest, name.pinned(digest)) for name in order.names
    )
    return Built(digest, image_id, pushed)
