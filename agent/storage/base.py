"""The storage protocol: seven verbs, and what every driver promises.

What holds for every driver, each sentence with a test in `tests/contract`:

- After `put` returns, the object is durable and complete; while it runs and after it failed or was
  cancelled, the key is absent (no partial object is ever visible, no part of an upload stays).
- A key is written once. `put` of a key that exists raises `ObjectExists` where the driver has
  `conditional_put`; elsewhere Tidelog's keys carry epochs, so that no two writers share one.
- No object's key is the directory of another's (`a` beside `a/b`); a driver that can tell raises
  `ObjectExists`. A key that no driver could store is refused by all: `agent.storage.keys`.
- `get` of a range past the end raises; an absent key raises `ObjectNotFound` before any byte.
- `list` yields in ascending byte order of the key, and sees what `put` returned where
  `strong_list`.
- `delete` of an absent key is no error.
- Every method is cancellable and safe for concurrent use.

Keys are relative to the prefix of the repository, `/`-separated, no leading slash. Errors are
`ObjectNotFound`, `ObjectExists`, `StorageFull`, `PermissionDenied`, `StorageUnavailable`,
`Throttled`, `IntegrityError`; each names the key and what was done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

from agent.storage.sources import source_of


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing knows of one object."""

    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What callers may rely on; sizes in bytes."""

    conditional_put: bool
    """`put` never replaces: it raises `ObjectExists` instead."""
    strong_list: bool
    """`list` sees what `put` returned."""
    max_object_bytes: int
    max_concurrency: int
    """Requests that may be under way at once."""
    retries_put: bool = False
    """A `put` that raises was tried as often as the settings say, part by part."""


class Storage(Protocol):
    """One repository's objects. Create it with the driver's `open`, close it with `aclose`."""

    @property
    def capabilities(self) -> Capabilities:
        """What this driver can do."""

    @property
    def address(self) -> str:
        """Where the repository is, for people: `file:///srv/backups/rs0`. Never holds a secret."""

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """Store the concatenated blocks of `source` under a new key.

        `size_hint` is the expected size in bytes, a hint only. Raises `ObjectExists` if the key
        is taken and the driver can tell.
        """

    def get(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open `[offset, offset + length)` of an object (to its end without `length`).

        Yields blocks of at most 1 MiB or what the driver received. Raises `ObjectNotFound`, and
        `IntegrityError` if the object ends before the range does.
        """

    async def stat(self, key: str) -> ObjectInfo:
        """Size of an object. Raises `ObjectNotFound`."""

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """All objects whose key starts with `prefix` (and is greater than `after`), ascending."""

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; absent ones are no error."""

    async def verify(self) -> None:
        """Prove that this process can write, list, read back and delete under a probe key."""

    async def aclose(self) -> None:
        """Let go of connections and threads. Idempotent."""


def blocks(data: bytes) -> AsyncIterator[bytes]:
    """One block of bytes as a source for `put`, which a retry may read again."""
    return source_of(data)


async def put_bytes(storage: Storage, key: str, data: bytes) -> ObjectInfo:
    """Store a small object held in memory."""
    return await storage.put(key, blocks(data), size_hint=len(data))


async def get_bytes(storage: Storage, key: str) -> bytes:
    """Read a whole object that is known to be small enough for memory."""
    held = BytesIO()  # joining the blocks in the end would hold them twice
    async with storage.get(key) as source:
        async for block in source:
            held.write(block)
    return held.getvalue()
