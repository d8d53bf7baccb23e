"""Trees deleted, whatever modes their folders have."""

import os
import shutil
import stat

OURS = 0o700


def remove(path: str) -> None:
    """Delete a file, a link itself, or a folder with all that is in it. Blocks."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        for folder, _, _ in os.walk(path):
            os.chmod(folder, OURS)
        shutil.rmtree(path)


def size_of(path: str) -> int:
    """Bytes of the files in a folder that may change meanwhile. Blocks."""
    total, todo = 0, [path]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
    return total
