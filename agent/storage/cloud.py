"""What the drivers of all object stores share: a bucket, or a container, with a prefix in it.

A driver brings a connection, an upload (`agent.storage.multipart`), ranges (`agent.storage.ranges`)
and a listing of its vendor; the seven verbs around them are here, once.
"""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from agent.errors import ObjectNotFound, TidelogError
from agent.storage.base import Capabilities, ObjectInfo
from agent.storage.describing import Description
from agent.storage.keys import check_key, check_prefix
from agent.storage.multipart import Plan, Target, upload
from agent.storage.pacing import Pace
from agent.storage.precedence import Choice
from agent.storage.probe import probe
from agent.storage.ranges import Range, Ranges, Reader
from agent.storage.retrying import Attempts
from agent.storage.surroundings import Surroundings
from agent.storage.threads import Threads
from agent.storage.unfinished import STALE_S, Uploads, abort_stale

MAX_CONNECTIONS: Final = 32
"""Requests under way, where the settings say nothing else."""
HASHING_THREADS: Final = 2
_PART: Final = b"tidelog probe, the first part"


class Transfers(Protocol):
    """What the settings of every object store say of transfers."""

    @property
    def upload_part_size(self) -> int:
        """Bytes of a part, and of a range that is read."""

    @property
    def upload_concurrency(self) -> int:
        """How many of them are under way for one object."""


class CloudConnection(ABC):
    """How keys are named, attempts counted, requests paced and sentences begun."""

    settings: Transfers

    def __init__(
        self,
        address: str,
        prefix: str,
        surroundings: Surroundings,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.surroundings = surroundings
        self.prefix = prefix
        self.address = f"{address}/{prefix}" if prefix else address
        self.max_connections = max_connections
        self.pace = Pace(max_connections, surroundings.clock)

    @property
    @abstractmethod
    def choice(self) -> Choice:
        """Which link of the credential chain is used."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections. Idempotent."""

    def name(self, key: str) -> str:
        """The name in the store of a key of the repository."""
        return f"{self.prefix}/{key}" if self.prefix else key

    def attempts(self, verb: str, key: str) -> Attempts:
        """A counter of the attempts at one request."""
        around = self.surroundings
        return Attempts(verb, key, around.policy, around.clock, around.on_retry)

    def cannot(self, action: str, key: str | None) -> str:
        """`cannot write 'a/b' in s3://bucket/prefix`."""
        named = "" if key is None else f"{key!r} in "
        return f"cannot {action} {named}{self.address}"


ConnectionT = TypeVar("ConnectionT", bound=CloudConnection)


class CloudStorage(ABC, Generic[ConnectionT]):
    """See `agent.storage.base.Storage`."""

    delete_at_once: ClassVar[int]
    """How many objects one request may delete."""
    without_batches: ClassVar[tuple[type[TidelogError], ...]] = ()
    """What a server says that has no such request: then objects are deleted one by one."""
    max_object_bytes: ClassVar[int]
    """Of the service, whatever the parts."""

    def __init__(
        self, connection: ConnectionT, ranges: Ranges, plan: Plan, uploads: Uploads | None = None
    ) -> None:
        """Without `uploads` the service lets go by itself of those that nobody finishes."""
        settings = connection.settings
        self._connection = connection
        self._ranges = ranges
        self._reader = Reader(ranges, settings.upload_part_size, settings.upload_concurrency)
        self._plan = plan
        self._uploads = uploads
        self._has_batches = True
        self._threads = Threads(HASHING_THREADS, "tidelog-storage")

    @property
    def capabilities(self) -> Capabilities:
        """What this driver can do with this server."""
        return Capabilities(
            conditional_put=self._is_conditional,
            strong_list=True,
            max_object_bytes=min(self._plan.max_object_bytes, self.max_object_bytes),
            max_concurrency=self._connection.max_connections,
            retries_put=True,
        )

    @property
    def address(self) -> str:
        """`s3://bucket/prefix`, with the scheme of the store."""
        return self._connection.address

    @property
    def credentials(self) -> Choice:
        """Which link of the credential chain is used."""
        return self._connection.choice

    @property
    def _is_conditional(self) -> bool:
        """Whether a `put` never replaces."""
        return True

    @abstractmethod
    async def _target(self, key: str) -> Target[Any]:
        """One upload to one key."""

    @abstractmethod
    def _pages(self, prefix: str, after: str | None) -> AsyncIterator[ObjectInfo]:
        """All objects below a prefix, in order."""

    @abstractmethod
    async def _delete_one(self, key: str) -> None:
        """May raise `ObjectNotFound`."""

    @abstractmethod
    async def _delete_batch(self, batch: builtins.list[str]) -> None:
        """Absent ones are no error."""

    @abstractmethod
    async def describe(self, probe: str) -> Description:
        """See `agent.storage.describing.Describing`."""

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """One request where it fits in one part, an upload in parts elsewhere."""
        target = await self._target(check_key(key))
        size_bytes = await upload(
            source,
            target,
            self._plan.for_size(size_hint),
            lambda: self._connection.attempts("put", key),
        )
        return ObjectInfo(key, size_bytes)

    @asynccontextmanager
    async def get(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """One request, or several ranges at once for what is long."""
        async with self._reader.open(Range(check_key(key), offset, length)) as stream:
            yield stream

    async def stat(self, key: str) -> ObjectInfo:
        """Asks for the object's properties."""
        return ObjectInfo(key, await self._ranges.size_bytes(check_key(key)))

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Page by page, as far as the caller draws."""
        async for found in self._pages(check_prefix(prefix), after):
            yield found

    async def delete(self, keys: Iterable[str]) -> None:
        """Many a request; versions that the store keeps of them stay."""
        remaining = iter(keys)
        while batch := [check_key(key) for key in islice(remaining, self.delete_at_once)]:
            if self._has_batches and len(batch) > 1:
                try:
                    await self._delete_batch(batch)
                    continue
                except self.without_batches:
                    self._has_batches = False
            for key in batch:
                with suppress(ObjectNotFound):
                    await self._delete_one(key)

    async def verify(self) -> None:
        """Write, list, read back and delete a probe object; and abort uploads that were left behind
        by writers that were killed."""
        await probe(self)
        await self.abort_stale_uploads()

    async def abort_stale_uploads(self, older_than_s: float = STALE_S) -> int:
        """Abort those below our prefix that were begun so long ago; how many."""
        if self._uploads is None:
            return 0
        return await abort_stale(self._connection.address, self._uploads, older_than_s)

    async def try_parts(self, key: str) -> tuple[TidelogError | None, TidelogError | None]:
        """See `agent.storage.describing.UploadsInParts`."""
        failed: TidelogError | None = None
        try:
            target = await self._target(key)
            await target.begin()
        except TidelogError as error:
            return error, None
        try:
            await target.part(1, _PART)
        except TidelogError as error:
            failed = error
        try:
            await target.abort()
        except TidelogError as error:
            return failed, error
        return failed, None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connection.aclose()
        await self._threads.aclose()
