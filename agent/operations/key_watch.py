"""Looks after the keys of the encryption, on every agent.

Each agent proves that it can use the keys that new data keys are wrapped under, when a policy comes
and every five minutes, and tells with its heartbeat which keys it has: agents that differ are seen,
and no backup begins. Once a day one of them unwraps the keys of all that is kept.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from agent.archive.keyring import Keyring
from agent.archive.vault import keyring_of
from agent.archive.wraps import check_usable, own_fingerprint
from agent.coordination.heartbeat import Condition
from agent.coordination.recent_settings import SettingsSource
from agent.coordination.wakeup import Wakeup
from agent.errors import (
    ConfigError,
    IntegrityError,
    KeyUnusable,
    LeaseLost,
    Permanent,
    TidelogError,
    Transient,
)
from agent.operations.context import Services
from agent.operations.copies import opened
from agent.operations.keys_kept import probe
from agent.storage.base import Storage
from agent.store.encryption_store import EncryptionStore
from agent.wire.encryption import Kek, Policy, Witness, wrap_context
from agent.wire.leases import KEY_PROBE_SCOPE
from agent.wire.profiles import names
from agent.wire.settings import Settings

LOOK_EVERY_S: Final = 30.0
CHECK_EVERY_S: Final = 300.0
CHECK_FAILED_AGAIN_S: Final = 30.0
CHECK_WITHIN_S: Final = 60.0
PROBE_EVERY_S: Final = 24 * 3600.0
PROBE_WITHIN_S: Final = 3600.0
PROBE_AGAIN_S: Final = 600.0

log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Check:
    """What one repository's keys are to this agent."""

    policy: str | None = None
    """Digest of its policy; None where it is not encrypted."""
    fingerprint: str = ""
    error: str = ""


@dataclass
class KeyWatch:
    """See the module: `run` is for the agent's task group."""

    services: Services
    settings: SettingsSource
    store: EncryptionStore
    condition: Condition
    wakeup: Wakeup
    """Woken by changed settings, which a first policy and every rotation bring about."""

    def __post_init__(self) -> None:
        self._checked_at: float | None = None
        self._tried_at: float | None = None
        self._seen: tuple[int, frozenset[str]] | None = None

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            self.wakeup.clear()
            try:
                await self._look()
            except (TidelogError, TimeoutError) as error:
                log.warning("encryption.probe_failed", error=str(error) or "timeout")
            await self.wakeup.wait()

    async def _look(self) -> None:
        settings, version = await self.settings.read()
        known = await self.store.all()
        seen = version, frozenset(witness.policy.sha256 for witness in known)
        if settings.storage is None or not (self._is_due(known) or seen != self._seen):
            return
        before = self.condition.key_policies, self.condition.key_error
        checks = [await self._checked(settings, profile, known) for profile in names(settings)]
        found = [check for check in checks if check.policy is not None]
        self.condition.key_policies = tuple(sorted(str(check.policy) for check in found))
        self.condition.key_fingerprint = " ".join(c.fingerprint for c in found) or None
        self.condition.key_error = "; ".join(c.error for c in checks if c.error) or None
        self._checked_at, self._seen = self.services.clock.monotonic(), seen
        if before != (self.condition.key_policies, self.condition.key_error):
            self.condition.changed.set()

    async def _checked(self, settings: Settings, profile: str, known: list[Witness]) -> Check:
        """One profile. A storage that does not answer says nothing of keys."""
        try:
            async with opened(self.services, settings, profile) as storage:
                async with asyncio.timeout(CHECK_WITHIN_S):
                    check = await check_keys(storage)
                if check.policy is not None:
                    await self._probe_if_due(storage, known)
                return check
        except (Transient, Permanent, ConfigError, TimeoutError) as error:
            told = str(error) or "no answer in time"
            log.warning("encryption.probe_failed", profile=profile, error=told)
            return Check(error=told if isinstance(error, IntegrityError) else "")

    def _is_due(self, known: list[Witness]) -> bool:
        if self._checked_at is None:
            return True
        every_s = CHECK_EVERY_S if self.condition.key_error is None else CHECK_FAILED_AGAIN_S
        return bool(known) and self.services.clock.monotonic() - self._checked_at >= every_s

    async def _probe_if_due(self, storage: Storage, known: list[Witness]) -> None:
        now = self.services.clock.monotonic()
        if self._tried_at is not None and now - self._tried_at < PROBE_AGAIN_S:
            return
        keyring = keyring_of(storage)
        if keyring is None or await keyring.announced() is None:
            return
        server_now = await keyring.custody.now()
        mine = [witness for witness in known if witness.address == storage.address]
        last = mine[0].probed_at if mine else None
        if last is not None and (server_now - last).total_seconds() < PROBE_EVERY_S:
            return
        self._tried_at = now
        lease = await self.services.leases.acquire(KEY_PROBE_SCOPE, self.services.node.id)
        if lease is None:
            return
        try:
            async with self.services.holder.hold(lease):
                async with asyncio.timeout(PROBE_WITHIN_S):
                    await probe(keyring)
        except LeaseLost as error:
            raise Transient(f"the probe of the keys was given up: {error}") from error


async def check_keys(storage: Storage) -> Check:
    """What the keys of a repository are to this agent. Raises `IntegrityError`."""
    keyring = keyring_of(storage)
    policy = None if keyring is None else await keyring.announced(fresh=True)
    if keyring is None or policy is None:
        return Check()
    found: list[str] = []
    errors: list[str] = []
    for kek in policy.keks:
        try:
            found.append(await own_fingerprint(keyring.provider(kek), kek))
            await _use(keyring, kek, policy)
        except TidelogError as error:
            errors.append(str(error))
            log.error("encryption.key_unusable", kek=kek.id, key=kek.key, error=str(error))
    return Check(policy.sha256, "+".join(found), "; ".join(errors))


async def _use(keyring: Keyring, kek: Kek, policy: Policy) -> None:
    """Make a key and unwrap it: that it may do both is known by doing it."""
    provider = keyring.provider(kek)
    await check_usable(provider, kek)
    context = wrap_context(policy.repository_id, "proof")
    made, wrapped = await provider.generate(context)
    if await provider.unwrap(wrapped, context) != made:
        raise KeyUnusable(f"the {kek.label} does not unwrap what it wrapped")
