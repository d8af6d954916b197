# Paths are bytes: see posix_root.
# ruff: noqa: PTH102, PTH108, PTH120
"""One file, written so that it is whole and durable, or absent: blocking calls.

A temporary file beside the object, then `fsync`, then a link that replaces nothing, then `fsync` of
the directories. Only `abort` takes anything back, also what `commit` has done a moment ago: the
caller that was cancelled while `commit` ran cannot know how far that came. An object that has been
there for longer stays, though its writer is told of nothing: this process may have been stopped
meanwhile, and whoever took over may rely on it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
import threading
from contextlib import suppress
from typing import Final

from agent.clock import SystemClock
from agent.errors import IntegrityError, ObjectExists, Permanent, StorageUnavailable
from agent.storage.keys import TEMPORARY_PREFIX
from agent.storage.posix_errors import translated
from agent.storage.posix_root import Root

_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_CLOCK: Final = SystemClock()
_ATTEMPTS: Final = 100
"""How often a directory may be pruned between its making and the first file in it."""
UNDONE_WITHIN_S: Final = 1.0
"""Less than the margin by which a holder stops before its lease lapses."""


class Writer:
    """`open`, `write`…, `commit`; on any failure or cancellation `abort`. Serialised by a lock."""

    def __init__(self, root: Root, key: str) -> None:
        self._root = root
        self._key = key
        self._target = root.file(key)
        self._lock = threading.Lock()
        self._is_over = False
        self._descriptor: int | None = None
        self._temporary: bytes | None = None
        self._linked_at: float | None = None
        self._size_bytes = 0

    def open(self) -> None:
        """Create the temporary file and the directories it needs. Raises `ObjectExists`."""
        with self._lock, translated(self._root.path, "write", self._key):
            if self._is_over:
                return
            self._root.require()
            if os.path.lexists(self._target):
                raise self._exists()
            self._create()

    def write(self, batch: list[bytes]) -> None:
        """Append blocks."""
        data = memoryview(batch[0] if len(batch) == 1 else b"".join(batch))
        with self._lock, translated(self._root.path, "write", self._key):
            if self._is_over or self._descriptor is None:
                return
            while data:
                written = os.write(self._descriptor, data)
                self._size_bytes += written
                data = data[written:]

    def commit(self) -> int:
        """Make the object durable under its key; its size. Raises `ObjectExists`."""
        with self._lock, translated(self._root.path, "write", self._key):
            if self._is_over or self._descriptor is None or self._temporary is None:
                return self._size_bytes
            self._sync_file(self._descriptor)
            self._close()
            self._publish(self._temporary)
            self._root.sync(self._target)
            return self._size_bytes

    def abort(self) -> None:
        """Leave nothing. Never raises: what cannot be removed now is swept later."""
        with self._lock:
            self._is_over = True
            with suppress(OSError):
                self._close()
            if self._temporary is not None:
                with suppress(OSError):
                    os.unlink(self._temporary)
            if (
                self._linked_at is not None
                and _CLOCK.monotonic() - self._linked_at < UNDONE_WITHIN_S
            ):
                with suppress(OSError):
                    os.unlink(self._target)
                    self._root.sync(self._target)
            self._root.prune(self._target)

    def _create(self) -> None:
        directory = os.path.dirname(self._target)
        for _ in range(_ATTEMPTS):
            path = directory + b"/" + f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}".encode()
            try:
                self._descriptor = os.open(path, _CREATE, _FILE_MODE)
                self._temporary = path
                return
            except NotADirectoryError as error:
                raise self._exists() from error
            except FileNotFoundError:
                self._make_directories()
        self._root.require()
        raise StorageUnavailable(
            f"cannot write {self._key!r} in {self._root.path}: its directory keeps vanishing"
        )

    def _make_directories(self) -> None:
        for directory in reversed(self._root.directories(self._target)):
            try:
                os.mkdir(directory, _DIRECTORY_MODE)
            except FileExistsError:
                continue
            except (FileNotFoundError, NotADirectoryError):
                return  # pruned or taken meanwhile: the next attempt tells

    def _sync_file(self, descriptor: int) -> None:
        os.fsync(descriptor)
        stored = os.fstat(descriptor).st_size
        if stored != self._size_bytes:
            raise IntegrityError(
                f"cannot write {self._key!r} in {self._root.path}: "
                f"{self._size_bytes} bytes were written, the file has {stored}"
            )
        # A backup beside a mongod must not push the database out of the page cache.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def _publish(self, temporary: bytes) -> None:
        try:
            os.link(temporary, self._target)
        except FileExistsError as error:
            # Over NFS the answer to the first request may be lost and the repeated one refused.
            if not _is_same_file(temporary, self._target):
                raise self._exists() from error
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            self._rename(temporary)
            return
        self._linked_at = _CLOCK.monotonic()
        os.unlink(temporary)
        self._temporary = None

    def _rename(self, temporary: bytes) -> None:
        """For file systems without hard links."""
        try:
            rename_no_replace(temporary, self._target)
        except FileExistsError as error:
            raise self._exists() from error
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            raise Permanent(
                f"cannot write {self._key!r} in {self._root.path}: the file system has neither "
                "hard links nor a rename that replaces nothing",
                hint="use a file system of Linux, NFS, or an object storage",
            ) from error
        self._linked_at = _CLOCK.monotonic()
        self._temporary = None

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _exists(self) -> ObjectExists:
        return ObjectExists(
            f"cannot write {self._key!r} in {self._root.path}: the key or one above it is taken"
        )


def rename_no_replace(source: bytes, target: bytes) -> None:
    """renameat2(2) with RENAME_NOREPLACE, which Python does not offer."""
    at_cwd, no_replace = -100, 1
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if libc.renameat2(at_cwd, source, at_cwd, target, ctypes.c_uint(no_replace)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _is_same_file(one: bytes, other: bytes) -> bool:
    first, second = os.lstat(one), os.lstat(other)
    return stat.S_ISREG(second.st_mode) and os.path.samestat(first, second)
