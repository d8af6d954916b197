"""What the operating system says about a file, in the words of Tidelog's errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agent.errors import (
    ObjectNotFound,
    Permanent,
    PermissionDenied,
    StorageFull,
    StorageUnavailable,
    TidelogError,
)

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})
"""No such object; an object's parent that is a file, or a directory in an object's place."""
_HOPELESS: Final = frozenset(
    {errno.EFBIG, errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP}
)


@contextmanager
def translated(root: Path, doing: str, key: str | None = None) -> Iterator[None]:
    """Raise what the operating system reports as one of Tidelog's errors, with its cause."""
    try:
        yield
    except OSError as error:
        raise translate(error, root, doing, key) from error


def translate(error: OSError, root: Path, doing: str, key: str | None = None) -> TidelogError:
    """The error for `doing` (`write`, `read`, …) something to or in the object `key`."""
    what = f"cannot {doing} {key!r} in {root}" if key is not None else f"cannot {doing} {root}"
    reason = (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        return StorageFull(f"{what}: {reason}, {_free_space(root)}")
    if error.errno in _DENIED:
        return PermissionDenied(f"{what}: {reason}", hint=_permission_hint(error, root))
    if error.errno in ABSENT:
        return ObjectNotFound(f"{what}: no such object")
    if error.errno in _HOPELESS:
        return Permanent(f"{what}: {reason}")
    return StorageUnavailable(
        f"{what}: {reason}", hint=f"check the disk or the mount of {root} on this host"
    )


def missing_root(root: Path, reason: str) -> StorageUnavailable:
    """The directory of the repository is not there."""
    return StorageUnavailable(
        f"the storage directory {root} {reason}",
        hint=f"mount it or create it on this host (install -d -m 0700 -o <agent's user> {root})",
    )


def _free_space(root: Path) -> str:
    try:
        status = os.statvfs(root)
    except OSError:
        return "free space unknown"
    return f"{status.f_bavail * status.f_frsize} bytes free"


def _permission_hint(error: OSError, root: Path) -> str:
    if error.errno == errno.EROFS:
        return f"the file system of {root} is mounted read-only"
    return f"let the agent's user (uid {os.geteuid()}) read, write and search {root} and below"
