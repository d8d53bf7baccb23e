"""What a plan names in its namespace: looked for before it is built, so that it can be waited for.

Of a plan's Secrets nothing comes into the plan: their values are asked of the keyring where they
are used. What a keyring has read it keeps, so who gathers at the beginning of an attempt has for
the whole of it what was there then.
"""

from collections.abc import Mapping
from dataclasses import replace

from imagewright.api.reason import Reason
from imagewright.domain.plan import Config, Inline, Plan
from imagewright.ports import Keyring, Missing, Rejected


async def gather(plan: Plan, keyring: Keyring) -> Plan:
    """The plan with everything read that is no secret.

    Raises Missing where something is not there yet, Rejected (InvalidCredentials) where it does
    not hold what its use asks for, Unavailable.
    """
    if plan.source_secret:
        await keyring.secret(plan.source_secret)
    for grant in (*plan.secrets, *plan.ssh):
        entry(await keyring.secret(grant.name), "Secret", grant.name, grant.key)
    await keyring.logins()
    values = {
        name: _text(entry(await keyring.config(value.name), "ConfigMap", value.name, value.key))
        for name, value in plan.values.items()
    }
    source = plan.source
    if isinstance(source, Config):
        source = Inline(dict(await keyring.config(source.name)))
    return replace(plan, source=source, build_args={**plan.build_args, **values}, values={})


def entry(entries: Mapping[str, bytes], kind: str, name: str, key: str) -> bytes:
    """The value of one key. Raises Missing."""
    if key not in entries:
        raise Missing(f"The {kind} {name} is there, but has no key {key} yet: add it.")
    return entries[key]


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Rejected(
            "A build argument's value in a ConfigMap is no text.", Reason.INVALID_REFERENCE
        ) from error
