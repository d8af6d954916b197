# Paths are bytes: see posix_root.
# ruff: noqa: PTH108, PTH116, PTH120
"""Many files at once: listing in key order, removal, and the sweep of what killed writers left.

Key order is the byte order of whole keys, in which a directory `a` counts as `a/`: `a-b`, `a.b`,
`a/b`, `a0`. So entries are sorted with that slash, directory by directory, and nothing but the
names of the directories that lead to the current key is held.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from agent.storage.base import ObjectInfo
from agent.storage.keys import TEMPORARY_PREFIX, check_prefix, is_reserved
from agent.storage.posix_errors import ABSENT, translated
from agent.storage.posix_root import Root, sync_directory

_TEMPORARY_PREFIX = TEMPORARY_PREFIX.encode()


def walk(root: Root, prefix: str, after: str | None) -> Iterator[ObjectInfo]:
    """The objects with that prefix, greater than `after`, ascending; reads as it is drawn from."""
    directory, slash, partial = check_prefix(prefix).rpartition("/")
    root.require()
    bound = after.encode() if after else b""
    yield from _walk(root, (directory + slash).encode(), partial.encode(), bound)


def _walk(root: Root, directory: bytes, partial: bytes, bound: bytes) -> Iterator[ObjectInfo]:
    for name in _names(root, directory, partial):
        key = directory + name
        if name.endswith(b"/"):
            if key > bound or bound.startswith(key):
                yield from _walk(root, key, b"", bound)
        elif key > bound:
            size = _size(root, key)
            if size is not None:
                yield ObjectInfo(key.decode(), size)


def _names(root: Root, directory: bytes, partial: bytes) -> list[bytes]:
    """What a directory holds, in key order, directories with a slash."""
    names = []
    with translated(root.path, "list", directory.decode()):
        try:
            with os.scandir(root.bytes + b"/" + directory) as entries:
                for entry in entries:
                    if not entry.name.startswith(partial) or _is_hidden(entry.name):
                        continue
                    if entry.is_dir():
                        names.append(entry.name + b"/")
                    elif entry.is_file():
                        names.append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            root.require()  # else an unmounted repository would look like a short one
            return []  # pruned meanwhile, or never there
    names.sort()
    return names


def _is_hidden(name: bytes) -> bool:
    try:
        return is_reserved(name.decode())
    except UnicodeDecodeError:
        return True  # not one of ours


def _size(root: Root, key: bytes) -> int | None:
    with translated(root.path, "list", key.decode()):
        try:
            return os.stat(root.bytes + b"/" + key).st_size
        except FileNotFoundError:
            root.require()
            return None  # deleted meanwhile


def remove(root: Root, keys: Sequence[str], stop: threading.Event) -> None:
    """Remove objects, durably, and the directories that are empty then; ends early on `stop`."""
    paths = [root.file(key) for key in keys]
    root.require()
    touched: dict[bytes, bytes] = {}
    for key, path in zip(keys, paths, strict=True):
        if stop.is_set():
            break
        with translated(root.path, "delete", key):
            try:
                os.unlink(path)
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
            else:
                touched[os.path.dirname(path)] = path
    for directory, path in touched.items():
        with translated(root.path, "delete in"), suppress(FileNotFoundError):
            sync_directory(directory)
        root.prune(path)


def sweep(root: Root, older_than_s: float, within_s: float | None) -> int:
    """Remove temporary files older than that by the clock of the file system; how many.

    With `within_s` it stops after so long; directories are visited in random order, so that
    sweeps that are cut short reach everything in time.
    """
    deadline = None if within_s is None else time.monotonic() + within_s
    now: float | None = None
    swept = 0
    for path in _temporaries(root.bytes, deadline):
        with translated(root.path, "sweep"), suppress(FileNotFoundError):
            if now is None:
                now = _file_system_time(root)
            if now - os.lstat(path).st_mtime >= older_than_s:
                os.unlink(path)
                swept += 1
                root.prune(path)
    return swept


def _temporaries(directory: bytes, deadline: float | None) -> Iterator[bytes]:
    directories = [directory]
    while directories and (deadline is None or time.monotonic() < deadline):
        found = []
        with suppress(OSError), os.scandir(directories.pop()) as entries:
            for entry in entries:
                if entry.name.startswith(_TEMPORARY_PREFIX):
                    yield entry.path
                elif entry.is_dir() and not _is_hidden(entry.name):
                    found.append(entry.path)
        random.shuffle(found)
        directories += found


def _file_system_time(root: Root) -> float:
    """Now, as the file system stamps it: a server's clock over NFS, not this host's."""
    path = root.bytes + b"/" + f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}".encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        os.unlink(path)
