"""Objects as files below one directory: a disk, or NFS mounted on every host with an agent.

The key is the path. What is there is whole and durable: see `posix_writer` for how. Blocking calls
run in threads of this driver's own; a dead NFS server can block those, never the event loop.
"""

from __future__ import annotations

import builtins
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from agent.errors import ConfigError, TidelogError
from agent.storage.base import Capabilities, ObjectInfo, Storage
from agent.storage.describing import Description
from agent.storage.posix_reader import Reader, size_of
from agent.storage.posix_root import Root
from agent.storage.posix_tree import remove, sweep, walk
from agent.storage.posix_writer import Writer
from agent.storage.probe import probe
from agent.storage.surroundings import Surroundings
from agent.storage.threads import Threads
from agent.wire.storage_settings import StorageSettings

WRITE_BATCH_BYTES: Final = 1024 * 1024
"""Small blocks are collected to this size: a change of threads costs as much as copying them."""
LIST_BATCH: Final = 1000
DELETE_BATCH: Final = 100
DEFAULT_THREADS: Final = 8

STALE_TEMPORARY_S: Final = 24 * 3600.0
"""No write takes so long; younger temporary files may belong to another agent."""
SWEEP_AT_OPEN_S: Final = 2.0


async def open_driver(
    settings: StorageSettings, surroundings: Surroundings | None = None
) -> Storage:
    """What `agent.storage.registry` calls."""
    if settings.filesystem is None:
        raise ConfigError("the settings have no section storage.filesystem")
    return await FilesystemStorage.open(Path(settings.filesystem.path))


class FilesystemStorage:
    """See `agent.storage.base.Storage`. Create it with `FilesystemStorage.open`."""

    def __init__(self, root: Root, threads: Threads, size: int) -> None:
        self._root = root
        self._threads = threads
        self._capabilities = Capabilities(
            conditional_put=True,
            strong_list=True,
            max_object_bytes=2**63 - 1,
            max_concurrency=size,
        )

    @classmethod
    async def open(cls, path: Path, *, threads: int = DEFAULT_THREADS) -> FilesystemStorage:
        """Open the repository in an existing directory, which is never created here: a directory
        that is missing is most often a file system that is not mounted.

        Sweeps temporary files of writers that were killed a day ago or earlier, as far as two
        seconds reach. Raises `ConfigError` and `StorageUnavailable`.
        """
        if not path.is_absolute():
            raise ConfigError(f"the storage directory {str(path)!r} is no absolute path")
        if path == Path("/"):
            raise ConfigError("the storage directory is /", hint="give it a directory of its own")
        pool = Threads(threads, "tidelog-filesystem")
        try:
            storage = cls(await pool.run(partial(Root.open, path)), pool, threads)
            with suppress(TidelogError):  # a repository that is read-only is good for a restore
                await storage.sweep_temporaries(STALE_TEMPORARY_S, within_s=SWEEP_AT_OPEN_S)
        except BaseException:
            await pool.aclose()
            raise
        return storage

    @property
    def capabilities(self) -> Capabilities:
        """What this driver can do."""
        return self._capabilities

    @property
    def address(self) -> str:
        """`file:///srv/backups`."""
        return self._root.path.as_uri()

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """Write once, durably."""
        writer = Writer(self._root, key)
        try:
            await self._threads.run(writer.open)
            async with aclosing(_batches(source)) as batches:
                async for batch in batches:
                    await self._threads.run(partial(writer.write, batch))
            size_bytes = await self._threads.run(writer.commit)
        except BaseException:
            await self._threads.finish(writer.abort)
            raise
        return ObjectInfo(key, size_bytes)

    @asynccontextmanager
    async def get(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Blocks of 1 MiB; a range past the end is refused before the first of them."""
        reader = Reader(self._root, key, offset, length)
        try:
            await self._threads.run(reader.open)
            async with aclosing(self._read(reader)) as stream:
                yield stream
        finally:
            await self._threads.finish(reader.close)

    async def _read(self, reader: Reader) -> AsyncGenerator[bytes, None]:
        while block := await self._threads.run(reader.read):
            yield block

    async def stat(self, key: str) -> ObjectInfo:
        """Size of an object."""
        return ObjectInfo(key, await self._threads.run(partial(size_of, self._root, key)))

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Reads directory by directory, as far as the caller draws."""
        walker = walk(self._root, prefix, after)
        while found := await self._threads.run(lambda: [*islice(walker, LIST_BATCH)]):
            for each in found:
                yield each

    async def delete(self, keys: Iterable[str]) -> None:
        """Durably, in batches; cancelled, it stops at once within a batch."""
        remaining = iter(keys)
        stop = threading.Event()
        try:
            while batch := [*islice(remaining, DELETE_BATCH)]:
                await self._threads.run(partial(remove, self._root, batch, stop))
        finally:
            stop.set()

    async def verify(self) -> None:
        """Write, list, read back and delete a probe object."""
        await probe(self)

    async def describe(self, probe: str) -> Description:
        """See `agent.storage.describing.Describing`."""
        status = await self._threads.run(partial(os.statvfs, self._root.path))
        return Description(
            identity=f"user {os.geteuid()}, group {os.getegid()} of the agent's host",
            credentials="the agent's own user",
            free_bytes=status.f_bavail * status.f_frsize,
        )

    async def sweep_temporaries(self, older_than_s: float, *, within_s: float | None = None) -> int:
        """Remove what killed writers left, if older than that by the file system's own clock.

        Walks the whole repository, or what `within_s` seconds reach; returns how many.
        """
        return await self._threads.run(partial(sweep, self._root, older_than_s, within_s))

    async def aclose(self) -> None:
        """Let the threads go."""
        await self._threads.aclose()


async def _batches(source: AsyncIterator[bytes]) -> AsyncGenerator[builtins.list[bytes], None]:
    """The blocks of a source in batches big enough to pay for a change of threads."""
    batch: list[bytes] = []
    size = 0
    async for block in source:
        if not block:
            continue
        batch.append(block)
        size += len(block)
        if size >= WRITE_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
