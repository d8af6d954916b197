"""What the stages of one replica set's restore share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from agent.archive.manifest import ChunkObject, SliceRef
from agent.clock import Clock
from agent.faults import fault_point
from agent.mongo.apply.documents import RawDocument
from agent.mongo.apply.fencing import put_up
from agent.mongo.apply.operations import apply_writes
from agent.mongo.node import Node
from agent.operations.restore.deciding import Evidence
from agent.operations.restore.pace import Pace
from agent.operations.restore.state import StateKeeper
from agent.replay.catalogue import Catalogue
from agent.replay.scope import Scope, derived_uuid
from agent.replay.unfinished import Unfinished
from agent.storage.base import Storage
from agent.wire.namespaces import TEMPORARY
from agent.wire.operations import Progress
from agent.wire.optime import OpTime

MARKER: Final = f"admin.{TEMPORARY}Marker"
"""Holds, for each restore, the last entry whose commands were carried out."""
MAJORITY_TIMEOUT_S: Final = 600.0

log = structlog.stdlib.get_logger()


async def is_over(ended: asyncio.Event, within_s: float) -> bool:
    """Wait for the end of what a background task accompanies; whether it came."""
    try:
        async with asyncio.timeout(within_s):
            return await ended.wait()
    except TimeoutError:
        return False


@dataclass(slots=True)
class Tally:
    """For progress."""

    stage: str = ""
    bytes_total: int = 0
    bytes_done: int = 0
    documents_total: int = 0
    documents_done: int = 0

    def progress(self) -> Progress:
        """As the part reports it."""
        return Progress(
            stage=self.stage,
            bytes_done=self.bytes_done,
            bytes_total=self.bytes_total,
            documents_done=self.documents_done,
            documents_total=self.documents_total,
        )


@dataclass(frozen=True, slots=True)
class Tuning:
    """What may be tuned."""

    loaders: int
    appliers: int
    builders: int
    budget_bytes: int
    commit_quorum: str | int | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """What is loaded, and what is replayed onto it."""

    catalogue_at: OpTime
    """Commands at or before it are in the catalogue that the replay begins with."""
    objects: tuple[ChunkObject, ...]
    slices: tuple[SliceRef, ...]
    until: OpTime
    """Inclusive."""
    evidence: Evidence | None = None
    """Where decisions on transactions over several shards are looked for; None without shards."""


@dataclass(slots=True)
class Job:
    """One replica set's restore, as one worker does it."""

    op_id: str
    node: Node
    storage: Storage
    clock: Clock
    base: Base
    tuning: Tuning
    keeper: StateKeeper
    check: Callable[[], None]
    """Raises when this worker must not write any more."""
    epoch: int
    """Of the lease that it writes under."""
    scope: Scope
    catalogue: Catalogue
    pace: Pace
    unfinished: tuple[Unfinished, ...] = ()
    """Changes of a sharded cluster's structure that were under way at the moment restored to."""
    tally: Tally = field(default_factory=Tally)
    kept: frozenset[bytes] = frozenset()
    """UUIDs of the target's collections that this worker has not dropped: they need no creating."""

    fence: RawDocument | None = None
    """What arrays of writes begin with, once it is put up."""

    async def fence_off(self) -> None:
        """Keep what workers before this one sent from the target, from now on."""
        uuid = derived_uuid(f"{self.op_id}/fence/{self.epoch}")
        self.fence = await put_up(
            self.node,
            self.epoch,
            uuid,
            check=self.check,
            told=lambda waiting: log.info("restore.writes_awaited", namespaces=waiting),
        )

    async def apply(self, operations: list[RawDocument], *, is_lenient: bool) -> None:
        """Carry out writes as long as this worker may: see `apply_writes`."""
        self.check()
        await fault_point("restore.before_apply")
        await apply_writes(self.node, operations, is_lenient=is_lenient, fence=self.fence)

    async def committed(self) -> None:
        """Wait until all that was written so far is durable on a majority of the target."""
        written = (await self.node.hello()).last_applied
        await self.node.wait_majority(written, timeout_s=MAJORITY_TIMEOUT_S)
