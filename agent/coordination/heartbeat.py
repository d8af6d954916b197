"""Proof of life: that this agent serves its node, and what the node is now.

Two things run for as long as the agent does. The *node lease* says that it is the only agent of its
node: a second one is refused, one whose predecessor died takes over when the lease has lapsed. The
*heartbeat* says every few seconds what the node is; elections go by it. When the control database
does not answer, both are tried on; when it does not for very long, the agent ends.
"""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

import structlog

from agent.clock import Clock, jittered
from agent.coordination.lease import Holder
from agent.errors import (
    ConfigError,
    Conflict,
    LeaseLost,
    Permanent,
    PermissionDenied,
    StoreUnavailable,
    TidelogError,
    Transient,
)
from agent.store.lease_store import LeaseStore
from agent.store.node_registry import NodeRegistry
from agent.version import VERSION
from agent.wire.leases import Lease, node_scope
from agent.wire.nodes import HEARTBEAT_EVERY_S, NodeStatus, Role
from agent.wire.storage_reports import StorageReport

GOODBYE_WITHIN_S: Final = 2.0
UNREACHABLE_FOR_S: Final = 60.0
CLAIM_EVERY_S: Final = 0.5
RETRY_S: Final = 1.0
COPIED_BY_EVERY_S: Final = 30.0
"""Members change the one that they copy from seldom."""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")

T = TypeVar("T")
log = structlog.stdlib.get_logger()


class ServedNode(Protocol):
    """What the heartbeat needs of the node."""

    @property
    def id(self) -> str:
        """`<replset>/<host>:<port>`."""

    host: str
    replset: str
    mongodb_version: str

    async def status(self) -> tuple[Role, float, str]:
        """Role, lag in seconds, version. Raises `NodeUnavailable`."""

    async def copied_by(self) -> int:
        """How many members copy from it. Raises `PermissionDenied`, `NodeUnavailable`."""


@dataclass
class Condition:
    """What other parts of the agent know about it, for the next heartbeat."""

    features: tuple[str, ...] = ()
    priority: float | None = None
    storage_error: str | None = None
    profile_errors: dict[str, str] = field(default_factory=dict)
    storage_warnings: dict[str, str] = field(default_factory=dict)
    """By profile: what will soon be a fault."""
    reports: tuple[StorageReport, ...] = ()
    storage_error_type: str | None = None
    """The name of the error in `agent.errors`."""
    storage_settings_version: int | None = None
    key_policies: tuple[str, ...] = ()
    key_fingerprint: str | None = None
    key_error: str | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to have it told at once."""

    @property
    def key_usable(self) -> bool | None:
        """Whether the encryption's keys open what they should; None where nothing is encrypted."""
        if not self.key_policies and self.key_error is None:
            return None
        return self.key_error is None


@dataclass
class Heartbeat:
    """This agent's node lease and heartbeats."""

    node: ServedNode
    registry: NodeRegistry
    leases: LeaseStore
    holder: Holder
    clock: Clock
    condition: Condition
    unreachable_for_s: float = UNREACHABLE_FOR_S

    def __post_init__(self) -> None:
        # Of this incarnation: one that was killed and one that follows it are two.
        self._owner = f"{socket.gethostname()} pid {os.getpid()} {secrets.token_hex(4)}"
        self._answered_at = self.clock.monotonic()
        self._has_begun = False
        self._role: Role | None = None
        self._copied_by = 0
        self._ask_copied_by_at = -math.inf
        self.latest: NodeStatus | None = None
        """What was last said of the node."""

    async def claim(self) -> Lease:
        """Become the agent of the node, waiting for the lease of one that died. Raises `Conflict`
        when another agent is alive, `StoreUnavailable` when that cannot be found out."""
        scope = node_scope(self.node.id)
        first: Lease | None = None
        while True:
            lease = await self._patiently(lambda: self.leases.acquire(scope, self._owner))
            if lease is not None:
                return lease
            now = await self._patiently(lambda: self.leases.read(scope))
            if first is None:
                first = now
                log.info("node.awaited", holder=now.owner if now else None)
            elif now and now.owner not in (None, self._owner) and now.expires_at > first.expires_at:
                raise Conflict(
                    f"another agent serves {self.node.id} already: {now.owner}",
                    hint="run one agent beside each mongod",
                )
            # One that lives renews within this time; one that died lapses in its ttl.
            await self.clock.sleep(CLAIM_EVERY_S)

    async def run(self, lease: Lease) -> None:
        """Hold the node lease and beat, for ever. Raises `Conflict` when another agent has the
        node, `StoreUnavailable` when the control database does not answer for too long, or what it
        refuses for as long."""
        self._has_begun = True
        while True:
            try:
                async with self.holder.hold(lease):
                    await self._beat()
            except (LeaseLost, Permanent, ConfigError) as error:
                log.warning("node.lease_lost", reason=str(error))
            lease = await self.claim()

    @property
    def silent_s(self) -> float:
        """How long ago the control database answered last."""
        return self.clock.monotonic() - self._answered_at

    async def goodbye(self) -> None:
        """Leave the registry, if it can be reached; else the heartbeat gets stale."""
        try:
            async with asyncio.timeout(GOODBYE_WITHIN_S):
                await self.registry.say_goodbye(self.node.id)
        except (TidelogError, TimeoutError) as error:
            log.warning("node.goodbye_failed", error=str(error) or "timeout")

    async def _beat(self) -> None:
        while True:
            self.condition.changed.clear()
            status = self.latest = await self._status()
            await self._patiently(partial(self.registry.heartbeat, status))
            try:
                async with asyncio.timeout(jittered(HEARTBEAT_EVERY_S)):
                    await self.condition.changed.wait()
            except TimeoutError:
                continue

    async def _status(self) -> NodeStatus:
        errors: tuple[str, ...] = ()
        try:
            role, lag_s, version = await self.node.status()
        except (Transient, Permanent, ConfigError) as error:
            role, lag_s, version = Role.DOWN, 0.0, self.node.mongodb_version
            errors = (str(error),)
        if role is not self._role:
            log.info("node.role_changed", before=self._role and str(self._role), after=str(role))
            self._role = role
        return NodeStatus(
            id=self.node.id,
            replset=self.node.replset,
            host=self.node.host,
            role=role,
            lag_s=lag_s,
            copied_by=await self._read_copied_by(role),
            priority=self.condition.priority,
            agent_version=VERSION,
            mongodb_version=version,
            features=self.condition.features,
            pid=os.getpid(),
            storage_error=self.condition.storage_error,
            profile_errors=dict(self.condition.profile_errors),
            storage_warnings=dict(self.condition.storage_warnings),
            reports=self.condition.reports,
            storage_settings_version=self.condition.storage_settings_version,
            key_policies=self.condition.key_policies,
            key_fingerprint=self.condition.key_fingerprint,
            key_error=self.condition.key_error,
            errors=errors,
            rss_bytes=_rss_bytes(),
        )

    async def _read_copied_by(self, role: Role) -> int:
        """How many copy from the node, asked now and then. It is for the choice among equals, so
        nothing fails where it cannot be known."""
        if role not in (Role.SECONDARY, Role.HIDDEN):
            return 0
        now = self.clock.monotonic()
        if now >= self._ask_copied_by_at:
            self._ask_copied_by_at = now + COPIED_BY_EVERY_S
            try:
                self._copied_by = await self.node.copied_by()
            except PermissionDenied as error:
                # What was known gets old; and nothing will be known before the agent starts again.
                self._copied_by, self._ask_copied_by_at = 0, math.inf
                log.info("node.copied_by_unknown", error=str(error))
            except (Transient, Permanent, ConfigError) as error:
                log.debug("node.copied_by_unknown", error=str(error))
        return self._copied_by

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask the control database, again and again; not longer than an agent may be without. What
        it refuses at first is wrong, and what it refuses later may be granted again soon."""
        while True:
            try:
                answer = await call()
            except (Transient, Permanent, ConfigError) as error:
                silent_s = self.clock.monotonic() - self._answered_at
                is_too_long = silent_s >= self.unreachable_for_s
                if not isinstance(error, Transient) and (is_too_long or not self._has_begun):
                    raise
                if is_too_long:
                    raise StoreUnavailable(
                        f"the control database has not answered for {silent_s:.0f} s: {error}"
                    ) from error
                log.warning("control.unreachable", silent_s=round(silent_s, 1), error=str(error))
            else:
                self._answered_at = self.clock.monotonic()
                return answer
            await self.clock.sleep(jittered(RETRY_S))


def _rss_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
