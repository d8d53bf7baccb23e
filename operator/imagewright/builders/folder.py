"""The part of a source that is the build context, and nothing outside of it."""

from pathlib import Path

from imagewright.api.reason import Reason
from imagewright.domain.plan import Directory, Inline
from imagewright.ports import Failed, Rejected


def folder_of(source: Directory, context_dir: str) -> str:
    """The context's place on this machine. Blocks.

    Raises Failed (SourceUnavailable) where spec.contextDir is no folder of the source, also where
    a symlink would lead out of it.
    """
    root = Path(source.path).resolve()
    folder = (root / context_dir).resolve()
    if not folder.is_dir() or not folder.is_relative_to(root):
        raise Failed(
            f"spec.contextDir is {context_dir}, but the source has no such folder.",
            Reason.SOURCE_UNAVAILABLE,
        )
    return str(folder)


def files_of(source: Inline, context_dir: str) -> dict[str, bytes]:
    """The files of the context, by their paths inside of it.

    Raises Rejected (SourceUnavailable) where there are none.
    """
    below = f"{context_dir}/" if context_dir else ""
    found = {
        path.removeprefix(below): data
        for path, data in source.files.items()
        if path.startswith(below)
    }
    if below and not found:
        raise Rejected(
            f"spec.contextDir is {context_dir}, but no inline file lies there: write its files as "
            "paths that begin with it.",
            Reason.SOURCE_UNAVAILABLE,
        )
    return found
