"""How far one replica set's restore is, so that another worker can go on.

What is recorded is durable on a majority of the target, so it holds whichever node becomes primary.
It lies in the part's result, and is mirrored to the repository: the story of a restore outlives the
cluster that it restored.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from typing import Any, Final

import structlog
from pydantic import Field

from agent.archive.layout import restore_key, touched_key
from agent.archive.objects import put_text
from agent.archive.vault import stored_name, write_for
from agent.clock import Clock
from agent.errors import ConfigError, Permanent, Transient
from agent.storage.base import Storage
from agent.wire.optime import OpTime
from agent.wire.record import Record

MIRROR_EVERY_S: Final = 60.0

log = structlog.stdlib.get_logger()


class Stage(StrEnum):
    """What has been done."""

    NEW = "new"
    CHECKED = "checked"
    """The target will be touched from now on."""
    WIPED = "wiped"
    CREATED = "created"
    LOADED = "loaded"
    REPLAYED = "replayed"
    INDEXED = "indexed"
    ROUTED = "routed"
    """Of config servers: the routing tables are in place."""
    OWNED = "owned"
    """Of a shard: what it does not own is gone. Replica sets that are no shard skip both."""
    MERGED = "merged"
    """Users and roles are in place."""

    def is_past(self, other: Stage) -> bool:
        """Whether this stage is `other` or a later one."""
        return _ORDER.index(self) >= _ORDER.index(other)


_ORDER: Final = list(Stage)


class State(Record):
    """The recorded progress."""

    stage: Stage = Stage.NEW
    loaded: str = ""
    """Base64 of a bitmap: which units of loading are done."""
    load_begun: bool = False
    keeps: bool = False
    """Whether collections of the target stayed: what small ones hold is looked at before they are
    loaded."""
    replay_begun: bool = False
    checkpoint: OpTime | None = None
    """Everything in the slices up to it is on the target."""
    routed_at: OpTime | None = None
    """What the new routing tables are stamped with."""
    fresh_seed: str | None = None
    """What new UUIDs are derived from, where the original ones could not be kept."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Duration of each stage."""
    warnings: tuple[str, ...] = ()
    applied: int = 0
    skipped: int = 0


class Bitmap:
    """A set of small integers."""

    def __init__(self, text: str = "") -> None:
        self._bits = int.from_bytes(base64.b64decode(text), "little")

    def add(self, number: int) -> None:
        """Take one in."""
        self._bits |= 1 << number

    def __contains__(self, number: int) -> bool:
        return bool(self._bits >> number & 1)

    def __str__(self) -> str:
        size = (self._bits.bit_length() + 7) // 8
        return base64.b64encode(self._bits.to_bytes(size, "little")).decode()


class StateKeeper:
    """Keeps the state in memory, and records it when told."""

    def __init__(
        self,
        state: State,
        *,
        record: Callable[[dict[str, Any]], Awaitable[None]],
        storage: Storage,
        clock: Clock,
        name: str,
        replset: str,
        epoch: int,
        is_mirrored: bool = True,
    ) -> None:
        self.state = state
        self._record = record
        self._storage = storage
        self._clock = clock
        self._name = name
        self._key_of = partial(restore_key, name, replset, epoch)
        self._touched_key_of = partial(touched_key, name, replset, epoch)
        self._is_mirrored = is_mirrored
        self._mirrored = 0
        self._mirrored_at = clock.monotonic()

    def note(self, **changes: Any) -> None:
        """Change what the next record will say."""
        self.state = self.state.model_copy(update=changes)

    def warn(self, *texts: str) -> None:
        """Add warnings to the report, each once."""
        fresh = [text for text in texts if text not in self.state.warnings]
        self.note(warnings=(*self.state.warnings, *fresh))

    async def save(self, *, is_milestone: bool = False, **changes: Any) -> None:
        """Record the state. Milestones, and now and then others, are mirrored."""
        self.note(**changes)
        state = self.state
        await self._record({"state": state.to_document()})
        now = self._clock.monotonic()
        if not self._is_mirrored:
            return
        if is_milestone or now - self._mirrored_at > MIRROR_EVERY_S:
            self._mirrored_at = now
            await self._mirror(state)

    async def touch(self, at: OpTime) -> None:
        """Note in the repository that the target is changed from `at` on."""
        if self._is_mirrored:
            await self._put(self._touched_key_of(at), at.model_dump_json())

    async def _mirror(self, state: State) -> None:
        await self._put(self._key_of(self._mirrored), state.model_dump_json(exclude_none=True))
        self._mirrored += 1

    async def _put(self, key: str, text: str) -> None:
        try:
            await write_for(self._storage, "restore", self._name)
            await put_text(self._storage, stored_name(self._storage, key), text)
        except (Transient, Permanent, ConfigError) as error:
            # A repository that may only be read can be restored from, and one whose first key is
            # lost while another opens what is there.
            log.warning("restore.not_mirrored", error=str(error))
