"""`ctl storage check`, the agent's half: everything Tidelog does to a storage, tried once.

Each right is tried by itself and named by itself, so that one that is missing is not hidden behind
another. What is written are a probe object and, where throughput is to be measured, one more; both
are deleted. No request is tried again for long: it is a look at the storage as it is now.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from agent.clock import Clock
from agent.errors import (
    IntegrityError,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    TidelogError,
)
from agent.storage.base import Storage, get_bytes, put_bytes
from agent.storage.describing import Describing, Description, UploadsInParts
from agent.storage.probe import PROBE_PREFIX
from agent.storage.sources import Replayable
from agent.wire.storage_reports import Permission, Verdict

BLOCK_BYTES: Final = 1 << 20


@dataclass(slots=True)
class Examination:
    """What was found."""

    permissions: list[Permission] = field(default_factory=list)
    description: Description = field(default_factory=Description)
    write_bytes_s: float | None = None
    read_bytes_s: float | None = None
    first_error: TidelogError | None = None
    """Of what Tidelog cannot work without."""

    def note(
        self, name: str, error: TidelogError | None, *, is_needed: bool = True, detail: str = ""
    ) -> None:
        """Take in how one trial ended."""
        verdict = Verdict.YES if error is None else Verdict.NO
        words = detail if error is None else str(error)
        self.permissions.append(
            Permission(name=name, verdict=verdict, is_needed=is_needed, detail=words)
        )
        if error is not None and is_needed and self.first_error is None:
            self.first_error = error

    def unknown(self, name: str, why: str, *, is_needed: bool = True) -> None:
        """Take in what could not be tried."""
        self.permissions.append(
            Permission(name=name, verdict=Verdict.UNKNOWN, is_needed=is_needed, detail=why)
        )


async def examine(storage: Storage, clock: Clock, measure_bytes: int = 0) -> Examination:
    """Try it. Raises nothing that the storage says: that is the answer."""
    found = Examination()
    key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
    body = b"tidelog probe " + secrets.token_bytes(50)
    found.note("put", put := await _error(lambda: put_bytes(storage, key, body)))
    if put is None:
        await _with_object(storage, found, key, body)
    else:
        found.note("list", await _error(lambda: _listed(storage, key, wanted=False)))
        for name in ("get", "range", "conditional put"):
            found.unknown(name, "nothing could be written to try it on")
    await _parts(storage, found, key)
    if isinstance(storage, Describing):
        found.description = await storage.describe(key)
    if put is None and measure_bytes:
        await _measure(storage, clock, found, measure_bytes)
    delete = await _error(lambda: _deleted(storage, key))
    if isinstance(delete, ObjectLocked):
        found.unknown("delete", f"a lock keeps what is written: {delete}")
    else:
        found.note("delete", delete)
    return found


async def _with_object(storage: Storage, found: Examination, key: str, body: bytes) -> None:
    found.note("list", await _error(lambda: _listed(storage, key, wanted=True)))
    found.note("get", await _error(lambda: _read(storage, key, body)))
    found.note("range", await _error(lambda: _read_range(storage, key, body)))
    if not storage.capabilities.conditional_put:
        found.unknown(
            "conditional put",
            "the store has none; keys of Tidelog carry epochs instead",
            is_needed=False,
        )
        return
    found.note("conditional put", await _error(lambda: _refused(storage, key)), is_needed=False)


async def _parts(storage: Storage, found: Examination, key: str) -> None:
    if not isinstance(storage, UploadsInParts):
        return
    upload, abort = await storage.try_parts(f"{key}-parts")
    found.note("multipart", upload)
    if upload is None:
        found.note("abort", abort)
    else:
        found.unknown("abort", "no upload could be begun to try it on")


async def _measure(storage: Storage, clock: Clock, found: Examination, size: int) -> None:
    """One object of random bytes, written and read back; both as fast as one stream goes."""
    key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
    block = secrets.token_bytes(BLOCK_BYTES)

    async def source() -> AsyncIterator[bytes]:
        for start in range(0, size, BLOCK_BYTES):
            yield block[: size - start]

    async def write() -> None:
        await storage.put(key, Replayable(source), size_hint=size)

    async def read() -> None:
        async with storage.get(key) as stream:
            async for _ in stream:
                pass

    began = clock.monotonic()
    if await _error(write) is None:
        written = clock.monotonic()
        found.write_bytes_s = size / max(written - began, 1e-6)
        if await _error(read) is None:
            found.read_bytes_s = size / max(clock.monotonic() - written, 1e-6)
    await _error(lambda: storage.delete([key]))


async def _error(trial: Callable[[], Awaitable[object]]) -> TidelogError | None:
    try:
        await trial()
    except TidelogError as error:
        return error
    return None


async def _listed(storage: Storage, key: str, *, wanted: bool) -> None:
    names = [item.key async for item in storage.list(key)]
    if wanted and key not in names and storage.capabilities.strong_list:
        raise IntegrityError(f"{storage.address} does not list {key!r}, which was just written")


async def _read(storage: Storage, key: str, body: bytes) -> None:
    if await get_bytes(storage, key) != body:
        raise IntegrityError(f"{storage.address} returns other bytes for {key!r} than written")


async def _read_range(storage: Storage, key: str, body: bytes) -> None:
    async with storage.get(key, offset=3, length=7) as stream:
        part = b"".join([block async for block in stream])
    if part != body[3:10]:
        raise IntegrityError(f"{storage.address} returns another range of {key!r} than asked for")


async def _refused(storage: Storage, key: str) -> None:
    try:
        await put_bytes(storage, key, b"a second writer")
    except ObjectExists:
        return
    raise IntegrityError(f"{storage.address} let {key!r} be written twice")


async def _deleted(storage: Storage, key: str) -> None:
    await storage.delete([key])
    try:
        await storage.stat(key)
    except ObjectNotFound:
        return
    raise IntegrityError(f"{storage.address} still has {key!r}, which was just deleted")
