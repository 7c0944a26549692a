"""Makes folders and files that only their owner may read, whatever the umask is."""

import contextlib
import os
import stat
from pathlib import Path

FOLDER_MODE, FILE_MODE = 0o700, 0o600


def make_private_folder(path: Path) -> None:
    """Create a folder of mode 0700, or give one that exists this mode.

    Folders above it are created as the umask says. A folder that others use too keeps its mode: one of another owner, one in
    which everybody may write (`/tmp`), the user's home and the working directory.

    Raises:
        OSError: it cannot be created.
    """
    path.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    found = path.stat()
    if stat.S_IMODE(found.st_mode) & 0o077 and _is_ours(found) and not found.st_mode & stat.S_ISVTX and not _is_shared(path):
        path.chmod(FOLDER_MODE)


def make_private(path: Path) -> None:
    """Give a file that exists mode 0600, if it is ours and others may read or write it."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) & 0o077 and _is_ours(found):
            path.chmod(FILE_MODE)


def private_opener(path: str, flags: int) -> int:
    """Open a file so that one that is created has mode 0600: the `opener` of `open`."""
    return os.open(path, flags, FILE_MODE)


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically by one of mode 0600.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    # A draft that a killed process left may have another mode.
    draft.unlink(missing_ok=True)
    with open(draft, "w", encoding="utf-8", opener=private_opener) as file:
        file.write(text)
    draft.replace(path)


def _is_ours(found: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or found.st_uid == os.getuid()


def _is_shared(path: Path) -> bool:
    return path.resolve() in (Path.home().resolve(), Path.cwd().resolve())
