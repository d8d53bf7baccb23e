"""What git says when it fails, in our words. It runs in the C locale, so its words are stable."""

import re

from imagewright.api.reason import Reason
from imagewright.domain.plan import Git
from imagewright.ports import Error, Failed, Rejected, Unavailable
from imagewright.sources.gitprocess import Ended

REFUSED = re.compile(
    r"could not read (Username|Password)|Authentication failed|returned error: 40[13]|"
    r"Permission denied|invalid credentials|Load key",
    re.IGNORECASE,
)
ABSENT = re.compile(
    r"not found|returned error: 4(04|10)|does not exist|not appear to be a git repo|"
    r"repository not exported|not our ref|couldn't find remote ref",
    re.IGNORECASE,
)
MOVED = re.compile(r"returned error: 30\d|unable to update url base")
UNTRUSTED = re.compile(r"certificate|Host key verification failed|SSL", re.IGNORECASE)
FULL = re.compile(r"No space left on device|Disk quota exceeded")
WIRE = re.compile(r"returned error: (5\d\d|429)|Could not resolve|Connection|timed out|early EOF")
LAST = 300


def translate(ended: Ended, source: Git) -> Error:
    """The error that a git that failed means."""
    words = ended.words
    said = " ".join(words.split())[-LAST:] or f"git ended with {ended.code}"
    if FULL.search(words):
        return Unavailable(f"{source.url} cannot be stored: the disk is full.", Reason.DISK_FULL)
    if MOVED.search(words):
        return Failed(
            f"{source.url} redirects elsewhere, and that is not followed: write the address that "
            "it leads to, often one with https, or with .git at its end.",
            Reason.SOURCE_UNAVAILABLE,
        )
    if REFUSED.search(words):
        return _refused(source)
    if UNTRUSTED.search(words):
        return Unavailable(
            f"{source.url} does not show a certificate or host key that is trusted: {said}",
            Reason.TLS_FAILED,
        )
    if ABSENT.search(words) and not WIRE.search(words):
        return Failed(f"{source.url} is not there: {said}", Reason.SOURCE_UNAVAILABLE)
    return Unavailable(f"{source.url} cannot be fetched now: {said}", Reason.SOURCE_UNAVAILABLE)


def _refused(source: Git) -> Error:
    if source.secret:
        return Rejected(
            f"{source.url} does not accept what the Secret {source.secret} of "
            "spec.source.git.secretRef holds.",
            Reason.INVALID_CREDENTIALS,
        )
    return Failed(
        f"{source.url} is not there, or asks who we are: name a Secret in "
        "spec.source.git.secretRef.",
        Reason.SOURCE_UNAVAILABLE,
    )
