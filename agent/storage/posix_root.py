# Paths are bytes here: keys are UTF-8 whatever the locale, and pathlib has no bytes.
# ruff: noqa: PTH106, PTH116, PTH120
"""The directory of a repository: is it there, and where in it is an object.

A directory below which nothing is mounted any more looks like an empty repository. Writing there
would put backups on the host's own disk, and listing would show none. So the device is remembered:
when it changes to the one below the mount point, the storage is unavailable; when it changes to
yet another one, the file system was mounted anew.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from agent.storage.keys import check_key
from agent.storage.posix_errors import missing_root, translate


class Root:
    """Blocking calls; create it with `Root.open`."""

    def __init__(self, path: Path, device: int, device_below: int | None) -> None:
        self.path = path
        self.bytes = os.fsencode(path)
        self._device = device
        self._device_below = device_below

    @classmethod
    def open(cls, path: Path) -> Root:
        """Raises `StorageUnavailable` if there is no such directory; never creates it."""
        device = _device_of(path)
        return cls(path, device, _device_below(os.path.realpath(path), device))

    def require(self) -> None:
        """Raise `StorageUnavailable` if the directory is gone or not mounted."""
        device = _device_of(self.path)
        if device == self._device:
            return
        if device == self._device_below:
            raise missing_root(self.path, "is not mounted any more")
        self._device = device

    def file(self, key: str) -> bytes:
        """The path of an object's file. Raises `InvalidKey`."""
        return self.bytes + b"/" + check_key(key).encode()

    def directories(self, path: bytes) -> list[bytes]:
        """The directories between the root and a file in it, the deepest first."""
        found = []
        directory = os.path.dirname(path)
        while directory != self.bytes:
            found.append(directory)
            directory = os.path.dirname(directory)
        return found

    def prune(self, path: bytes) -> None:
        """Remove the directories of a file that are empty now. Safe beside a `put` into them:
        a directory with a temporary file in it is not empty, and writers make missing ones."""
        for directory in self.directories(path):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError:
                return

    def sync(self, path: bytes) -> None:
        """Make the directory entries that lead to a file durable, up to the root.

        All of them each time, since another process may have made one and not come to its
        `fsync`; that of a clean directory costs tens of microseconds.
        """
        for directory in [*self.directories(path), self.bytes]:
            sync_directory(directory)


def sync_directory(path: bytes) -> None:
    """`fsync` a directory, where the file system knows of that."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def _device_of(path: Path) -> int:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing_root(path, "does not exist") from error
    except OSError as error:
        raise translate(error, path, "open") from error
    if not stat.S_ISDIR(status.st_mode):
        raise missing_root(path, "is no directory")
    return status.st_dev


def _device_below(path: str, device: int) -> int | None:
    """The device that shows when the file system of `path` is unmounted; None for `/`."""
    while path != "/":
        path = os.path.dirname(path)
        try:
            below = os.stat(path).st_dev
        except OSError:
            return None
        if below != device:
            return below
    return None
