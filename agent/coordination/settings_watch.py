"""Follows the settings of the cluster: what they say of this node, and whether their storage works
from here. Told with the heartbeat, so that `ctl config` and `ctl status` can show it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from agent.clock import Clock
from agent.coordination.heartbeat import Condition
from agent.coordination.recent_settings import SettingsSource
from agent.coordination.wakeup import Wakeup
from agent.errors import StorageUnavailable, TidelogError, Transient
from agent.tasks import TaskGroup
from agent.wire.profiles import MAIN, names
from agent.wire.settings import Settings

POLL_S: Final = 30.0
"""Changes wake; this is for a wake-up that was missed."""
READ_AGAIN_S: Final = 1.0
CHECK_WITHIN_S: Final = 60.0
CHECK_AGAIN_S: Final = 1800.0
CHECK_FAILED_AGAIN_S: Final = 15.0
"""Whoever mends a storage looks at `ctl status` next, and elections pass by who cannot use it."""

log = structlog.stdlib.get_logger()


class _OverError(Exception):
    """Everything was looked at, or other settings hold now."""


@dataclass
class SettingsWatch:
    """Keeps this agent's condition in step with the settings."""

    settings: SettingsSource
    host: str
    condition: Condition
    check_storage: Callable[[Settings, str], Awaitable[str | None]]
    """Proves that this agent can use the storage of a profile; answers what is worth a warning.
    Raises `TidelogError`."""
    wakeup: Wakeup
    """Should not be woken by what concerns operations only."""
    clock: Clock

    def __post_init__(self) -> None:
        self._checked_at: float | None = None

    def look_again(self) -> None:
        """Check the storages soon: somebody has found other than what is told."""
        self._checked_at = None
        self.wakeup.wake()

    async def run(self) -> None:
        """Look at each wake-up, for ever."""
        while True:
            self.wakeup.clear()
            try:
                await self._look()
            except TidelogError as error:
                # What woke us has not been seen, and nothing wakes us for it again.
                log.warning("settings.not_read", error=str(error), hint=error.hint)
                await self.wakeup.wait(READ_AGAIN_S if isinstance(error, Transient) else POLL_S)
                continue
            await self.wakeup.wait(None if self._is_well() else CHECK_FAILED_AGAIN_S)

    async def _look(self) -> None:
        settings, version = await self.settings.read()
        changed = version != self.condition.storage_settings_version
        if changed:
            self.condition.priority = priority_of(self.host, settings)
        if changed or self._is_check_due():
            found = await self._checked_unless_changed(settings, version)
            if found is None:
                return
            errors, warnings = found
            for profile, error in errors.items():
                if str(error) != self.known(profile):
                    log.warning("storage.check_failed", profile=profile, error=str(error))
            for profile, warning in warnings.items():
                log.warning("storage.worry", profile=profile, warning=warning)
            self.condition.storage_warnings = warnings
            main = errors.pop(MAIN, None)
            self.condition.storage_error = None if main is None else str(main)
            self.condition.storage_error_type = None if main is None else type(main).__name__
            self.condition.profile_errors = {name: str(error) for name, error in errors.items()}
            self.condition.storage_settings_version = version
            self._checked_at = self.clock.monotonic()
            self.condition.changed.set()

    def _is_check_due(self) -> bool:
        if self._checked_at is None:
            return True
        again_s = CHECK_AGAIN_S if self._is_well() else CHECK_FAILED_AGAIN_S
        return self.clock.monotonic() - self._checked_at >= again_s

    def _is_well(self) -> bool:
        return self.condition.storage_error is None and not self.condition.profile_errors

    def known(self, profile: str) -> str | None:
        """What is told of a storage: why it cannot be used, None where it can."""
        if profile == MAIN:
            return self.condition.storage_error
        return self.condition.profile_errors.get(profile)

    async def _checked_unless_changed(
        self, settings: Settings, version: int
    ) -> tuple[dict[str, TidelogError], dict[str, str]] | None:
        """None as soon as other settings hold: nobody has to wait for a storage that does not
        answer once its address was put right."""
        found = None
        try:
            async with TaskGroup() as group:
                group.create_task(self._until_changed(version))
                found = await self._check_all(settings)
                raise _OverError
        except* _OverError:
            pass
        return found

    async def _until_changed(self, version: int) -> None:
        """Raises `_OverError` when the settings are not of this version any more. That, and a
        wake-up that it could not look at, is left to `run`."""
        while True:
            await self.wakeup.wait(POLL_S)
            self.wakeup.clear()
            found: int | None = None
            try:
                with suppress(TidelogError):
                    _, found = await self.settings.read()
            finally:
                if found != version:
                    self.wakeup.wake()
            if found is None:
                await self.clock.sleep(READ_AGAIN_S)
            elif found != version:
                raise _OverError

    async def _check_all(
        self, settings: Settings
    ) -> tuple[dict[str, TidelogError], dict[str, str]]:
        """What is wrong with which profile, and what soon will be; all are looked at at once."""
        errors: dict[str, TidelogError] = {}
        warnings: dict[str, str] = {}

        async def check(profile: str) -> None:
            found = await self._check(settings, profile)
            if isinstance(found, TidelogError):
                errors[profile] = found
            elif found is not None:
                warnings[profile] = found

        async with TaskGroup() as group:
            for profile in names(settings):
                group.create_task(check(profile))
        return errors, warnings

    async def _check(self, settings: Settings, profile: str) -> TidelogError | str | None:
        try:
            async with asyncio.timeout(CHECK_WITHIN_S):
                return await self.check_storage(settings, profile)
        except TidelogError as error:
            return error
        except TimeoutError:
            return StorageUnavailable(f"the storage did not answer within {CHECK_WITHIN_S:g} s")


def priority_of(host: str, settings: Settings) -> float | None:
    """The priority of a node. As in PBM, nodes that are not named have 1 as soon as one is."""
    named = settings.backup.priority
    return named.get(host, 1.0) if named else None
