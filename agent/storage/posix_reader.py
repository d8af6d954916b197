# Paths are bytes: see posix_root.
# ruff: noqa: PTH116
"""A range of one file, read in blocks: blocking calls."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from typing import Final

from agent.errors import IntegrityError, ObjectNotFound
from agent.storage.posix_errors import ABSENT, translated
from agent.storage.posix_root import Root

BLOCK_BYTES: Final = 1024 * 1024


class Reader:
    """`open`, `read` until it returns nothing, `close`. Serialised by a lock."""

    def __init__(self, root: Root, key: str, offset: int, length: int | None) -> None:
        if offset < 0 or (length is not None and length < 0):
            raise ValueError(f"no range of {key!r}: offset {offset}, length {length}")
        self._root = root
        self._key = key
        self._path = root.file(key)
        self._length = length
        self._position = offset
        self._end = offset
        self._lock = threading.Lock()
        self._is_over = False
        self._descriptor: int | None = None

    def open(self) -> None:
        """Raises `ObjectNotFound`, and `IntegrityError` if the range reaches past the end."""
        with self._lock, translated(self._root.path, "read", self._key):
            if self._is_over:
                return
            self._descriptor, size = open_object(self._root, self._key, self._path)
            self._end = size if self._length is None else self._position + self._length
            if max(self._position, self._end) > size:
                raise self._too_short(size)

    def read(self) -> bytes:
        """The next block, empty at the end of the range."""
        with self._lock, translated(self._root.path, "read", self._key):
            wanted = min(BLOCK_BYTES, self._end - self._position)
            if self._is_over or self._descriptor is None or wanted <= 0:
                return b""
            block = os.pread(self._descriptor, wanted, self._position)
            if not block:
                raise self._too_short(self._position)
            self._position += len(block)
            return block

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._is_over = True
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                with suppress(OSError):
                    os.close(descriptor)

    def _too_short(self, size: int) -> IntegrityError:
        return IntegrityError(
            f"cannot read {self._key!r} in {self._root.path}: "
            f"it has {size} bytes, bytes up to {max(self._position, self._end)} were asked for"
        )


def open_object(root: Root, key: str, path: bytes) -> tuple[int, int]:
    """The descriptor and the size of an object's file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in ABSENT:
            root.require()
        raise
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return descriptor, status.st_size
    os.close(descriptor)
    raise ObjectNotFound(f"cannot read {key!r} in {root.path}: no such object")


def size_of(root: Root, key: str) -> int:
    """Size of an object. Raises `ObjectNotFound`."""
    with translated(root.path, "look up", key):
        try:
            status = os.stat(root.file(key))
        except OSError as error:
            if error.errno in ABSENT:
                root.require()
            raise
    if not stat.S_ISREG(status.st_mode):
        raise ObjectNotFound(f"cannot look up {key!r} in {root.path}: no such object")
    return status.st_size
