"""From a spec to the plan that a builder gets, and to the digest that says: these inputs."""

import hashlib
import json

from imagewright.api.imagebuild import ImageBuild, ImageBuildSpec
from imagewright.api.option import Mount
from imagewright.domain.fairness import Ticket
from imagewright.domain.plan import (
    Access,
    CacheExport,
    Config,
    Form,
    Git,
    Grant,
    Http,
    Inline,
    Oci,
    Plan,
    Sandbox,
    Source,
    Ulimit,
    Value,
)
from imagewright.domain.quantity import bytes_of
from imagewright.domain.reference import parse

OPERATIONAL = frozenset(
    {
        "cancel",
        "suspend",
        "priority",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    }
)
"""Fields that decide when and whether, not what: a change of them starts no new run."""


def make_plan(spec: ImageBuildSpec) -> Plan:
    """The plan that a spec asks for."""
    return Plan(
        source=_source(spec),
        context_dir=spec.context_dir.strip("/"),
        dockerfile=spec.dockerfile,
        dockerfile_inline=spec.dockerfile_inline or "",
        builder=spec.builder,
        target=spec.target,
        build_args={arg.name: arg.value for arg in spec.build_args if arg.value_from is None},
        values=_values(spec),
        images=tuple(spec.images),
        labels=spec.labels,
        annotations=spec.annotations,
        platforms=tuple(spec.platforms),
        secrets=tuple(_grant(mount) for mount in spec.secrets),
        ssh=tuple(_grant(mount) for mount in spec.ssh),
        access=Access(
            tuple(auth.secret_ref.name for auth in spec.registry_auth),
            spec.service_account_name or "",
        ),
        pull=spec.pull,
        no_cache=spec.cache.no_cache,
        cache_from=tuple(cache.ref for cache in spec.cache.import_from),
        cache_to=tuple(CacheExport(cache.ref or "", cache.mode) for cache in spec.cache.export_to),
        squash=spec.squash,
        sandbox=_sandbox(spec),
        form=_form(spec),
    )


def inputs_digest(spec: ImageBuildSpec) -> str:
    """A digest over the fields that decide the image: equal inputs, equal digest."""
    fields = spec.model_dump(
        mode="json",
        by_alias=True,
        exclude={"cache": {"key"}},
        exclude_defaults=True,
        exclude_none=True,
    )
    # A cache of which only the key is given is as none.
    inputs = {name: value for name, value in fields.items() if value and name not in OPERATIONAL}
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def ticket_of(build: ImageBuild) -> Ticket:
    """The build's place in the queue. Raises InvalidReference where a name is none.

    Builds of one repository share a worker, whatever objects ask for them; a build without a name
    shares it with its own next runs.
    """
    meta, spec = build.metadata, build.spec
    own = f"{meta.namespace}/{meta.name}"
    return Ticket(
        uid=meta.uid,
        namespace=meta.namespace,
        priority=spec.priority,
        created=meta.creation_timestamp.isoformat() if meta.creation_timestamp else "",
        key=spec.cache.key or (parse(spec.images[0]).name if spec.images else own),
    )


def _source(spec: ImageBuildSpec) -> Source:
    source = spec.source
    if source.inline is not None:
        return Inline({path: text.encode() for path, text in source.inline.files.items()})
    if source.git is not None:
        git = source.git
        secret = git.secret_ref.name if git.secret_ref else ""
        return Git(git.url, git.revision or "", git.submodules, secret=secret)
    if source.http is not None:
        http = source.http
        secret = http.secret_ref.name if http.secret_ref else ""
        return Http(http.url, http.sha256 or "", secret)
    if source.oci is not None:
        oci = source.oci
        return Oci(oci.image, secret=oci.secret_ref.name if oci.secret_ref else "")
    if source.config_map is not None:
        return Config(source.config_map.name)
    raise ValueError("A spec has exactly one source; the model holds to it.")


def _values(spec: ImageBuildSpec) -> dict[str, Value]:
    refs = {
        arg.name: arg.value_from.config_map_key_ref for arg in spec.build_args if arg.value_from
    }
    return {name: Value(ref.name, ref.key) for name, ref in refs.items()}


def _grant(mount: Mount) -> Grant:
    return Grant(mount.id, mount.secret_ref.name, mount.secret_ref.key)


def _sandbox(spec: ImageBuildSpec) -> Sandbox:
    return Sandbox(
        network=spec.network,
        extra_hosts=tuple((host.hostname, host.ip) for host in spec.extra_hosts),
        shm_size=bytes_of(spec.shm_size) if spec.shm_size else 0,
        ulimits=tuple(Ulimit(one.name, one.soft, one.hard) for one in spec.ulimits),
        limits=_limits(spec),
    )


def _limits(spec: ImageBuildSpec) -> dict[str, int | str]:
    """By the names that the engine's build request has for them; what is unset is left out."""
    limits = spec.limits
    if limits is None:
        return {}
    found: dict[str, int | str | None] = {
        "memory": bytes_of(limits.memory) if limits.memory else None,
        "memswap": bytes_of(limits.memory_swap) if limits.memory_swap else None,
        "cpushares": limits.cpu_shares,
        "cpuperiod": limits.cpu_period,
        "cpuquota": limits.cpu_quota,
        "cpusetcpus": limits.cpuset_cpus,
        "cpusetmems": limits.cpuset_mems,
    }
    return {name: value for name, value in found.items() if value is not None}


def _form(spec: ImageBuildSpec) -> Form:
    return Form(
        compression=spec.output.compression,
        source_date_epoch=spec.output.source_date_epoch,
        rewrite_timestamp=spec.output.rewrite_timestamp,
        provenance=spec.attestations.provenance,
        sbom=spec.attestations.sbom,
    )
