"""What a BuildKit session serves for a build: its files, and what its Secrets hold.

The daemon asks at the moment it needs something, and is told that one thing, from the Secret as it
was when the attempt began.
"""

import base64
from collections.abc import Mapping

from imagewright.builders.context import Context, GitAccess
from imagewright.clients.buildkit import trees
from imagewright.clients.buildkit.auth import Auth, Credential
from imagewright.clients.buildkit.calls import Handler
from imagewright.clients.buildkit.filesync import FileSync
from imagewright.clients.buildkit.secrets import Secrets
from imagewright.clients.buildkit.ssh import Agents
from imagewright.clients.registry.tokens import TokenClient
from imagewright.domain.plan import Access, Git, Grant, Plan, Source
from imagewright.ports import Keyring

GIT = "imagewright.git"
"""The id under which the source's own secret is served, beside those of the user."""
TOKEN, USERNAME, PASSWORD = "token", "username", "password"  # keys of a Secret
SSH_KEY, KNOWN_HOSTS = "ssh-privatekey", "known_hosts"


def session_needed(plan: Plan, context: Context) -> bool:
    """Whether the daemon may have something to ask. A build without a session is the cheaper."""
    private = isinstance(plan.source, Git) and bool(plan.source.secret)
    granted = bool(plan.secrets or plan.ssh) or plan.access != Access()
    return bool(context.directory) or private or granted


def served(
    plan: Plan, context: Context, keyring: Keyring, tokens: TokenClient
) -> tuple[Mapping[str, Handler], str]:
    """The session's methods, and the key under which its files are known between sessions."""
    answers = _Answers(plan, keyring)
    handlers = {
        **Auth(answers.credential, tokens).handlers(),
        **Secrets(answers.secret).handlers(),
        **Agents(answers.key).handlers(),
    }
    if not context.directory:
        return handlers, ""
    folder = trees.Directory(context.directory)
    files = FileSync({"context": folder, "dockerfile": folder})
    return {**handlers, **files.handlers()}, files.shared_key


async def opening(source: Source, keyring: Keyring) -> GitAccess:
    """What opens a private repository: a header, or a key that the daemon never sees."""
    if not isinstance(source, Git) or not source.secret:
        return GitAccess()
    held = await keyring.secret(source.secret)
    if SSH_KEY not in held:
        return GitAccess(header=GIT)
    return GitAccess(ssh=GIT, known_hosts=held.get(KNOWN_HOSTS, b"").decode(errors="replace"))


class _Answers:
    """One build's answers to the daemon's questions; nothing is known that it was not granted."""

    def __init__(self, plan: Plan, keyring: Keyring) -> None:
        self._keyring = keyring
        self._source = plan.source.secret if isinstance(plan.source, Git) else ""
        self._secrets = {grant.id: grant for grant in plan.secrets}
        self._keys = {grant.id: grant for grant in plan.ssh}

    async def credential(self, host: str) -> Credential | None:
        """Who the build is in a registry."""
        found = await self._keyring.login(host)
        return Credential(found.username, found.password) if found else None

    async def secret(self, name: str) -> bytes | None:
        """What a RUN mounts, or the header that opens the repository."""
        if name == GIT and self._source:
            return _header(await self._keyring.secret(self._source))
        return await self._granted(self._secrets.get(name))

    async def key(self, name: str) -> bytes | None:
        """A private key, in PEM."""
        if name == GIT and self._source:
            return (await self._keyring.secret(self._source)).get(SSH_KEY)
        return await self._granted(self._keys.get(name or "default"))

    async def _granted(self, grant: Grant | None) -> bytes | None:
        if grant is None:
            return None
        return (await self._keyring.secret(grant.name)).get(grant.key)


def _header(held: Mapping[str, bytes]) -> bytes | None:
    """The Authorization header: a token goes as the password, which every git host takes."""
    if TOKEN in held:
        pair = held.get(USERNAME, b"x-access-token") + b":" + held[TOKEN]
    elif PASSWORD in held:
        pair = held.get(USERNAME, b"") + b":" + held[PASSWORD]
    else:
        return None
    return b"Basic " + base64.b64encode(pair)
