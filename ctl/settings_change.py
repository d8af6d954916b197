"""Changing the settings: read, change, replace what was read, hear what the agents say of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.errors import ConfigError, Conflict
from agent.wire import keys
from agent.wire.profiles import MAIN, names, storage_of
from agent.wire.sealing import KEY_FILE_VARIABLE, SealingKey, storable
from agent.wire.settings import Settings, from_mapping
from agent.wire.storage_settings import StorageSettings
from ctl.exit_codes import OperationFailed
from ctl.storage_settings import wait_for_verdicts

if TYPE_CHECKING:
    from ctl.session import Session

ATTEMPTS: Final = 5
Change = Callable[[Settings], Settings]


def edit_keys(assignments: tuple[str, ...], removals: tuple[str, ...]) -> Change:
    """The change that `--set` and `--unset` mean. Raises `ConfigError`."""
    pairs = []
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        if not equals or not path.strip():
            raise ConfigError(
                f"{assignment!r} is no assignment", hint="write --set section.key=value"
            )
        pairs.append((path.strip(), value))

    for path in (*removals, *(path for path, _ in pairs)):
        if keys.resolve(Settings, path.strip())[:1] == ["profiles"]:
            raise ConfigError(
                f"{path} belongs to a profile", hint="change profiles with 'ctl profile add'"
            )

    def edit(settings: Settings) -> Settings:
        # Checked as a whole: `storage.type=filesystem` alone would lack its section.
        raw = settings.to_document()
        for path in removals:
            raw = keys.unset_path(raw, keys.resolve(Settings, path.strip()))
        for path, value in pairs:
            raw = keys.set_path(raw, keys.resolve(Settings, path), keys.parse_value(value))
        return from_mapping(raw)

    return edit


async def apply_change(session: Session, change: Change, profile: str = MAIN) -> Settings:
    """Make it, whatever others change meanwhile, and report the storage check if it touched the
    storage of this profile. Raises `OperationFailed` when agents cannot use it."""
    before, after, version = await _replace(session, change)
    if profile in names(after) and _storage(after, profile) != _storage(before, profile):
        await _report_storage(session, version, profile)
    return after


def _storage(settings: Settings, profile: str) -> StorageSettings | None:
    return storage_of(settings, profile) if profile in names(settings) else None


def sealing_key(environment: Mapping[str, str]) -> SealingKey | None:
    """The key that secrets in clear are sealed with, if this host has one. Raises `ConfigError`."""
    path = environment.get(KEY_FILE_VARIABLE)
    if not path:
        return None
    try:
        return SealingKey(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"{KEY_FILE_VARIABLE} cannot be read from {path}: {reason}") from error


async def _replace(session: Session, change: Change) -> tuple[Settings, Settings, int]:
    for attempt in range(ATTEMPTS):
        before, version = await session.settings.read()
        after = storable(change(before), sealing_key(os.environ), secrets.token_bytes)
        try:
            version = await session.settings.replace(after, version)
        except Conflict:
            # Somebody else changed them in between: make our change to theirs.
            if attempt == ATTEMPTS - 1:
                raise
        else:
            await session.commands.wake()
            return before, after, version
    raise AssertionError("unreachable")


async def _report_storage(session: Session, version: int, profile: str) -> None:
    verdicts = await wait_for_verdicts(session, version, profile)
    if not verdicts:
        session.output.note("Warning: no agent is alive, so nobody has checked the storage")
        return
    failed = [verdict for verdict in verdicts if verdict.is_current and not verdict.is_ok]
    for verdict in verdicts:
        if verdict not in failed:
            session.output.note(f"Storage check: {verdict.sentence}")
    if failed:
        raise OperationFailed(
            "the settings are stored, but the storage cannot be used: "
            + "; ".join(verdict.sentence for verdict in failed),
            hint="correct them, then run 'ctl storage check'",
        )
    how = "config --force-resync" if profile == MAIN else f"profile sync {profile}"
    session.output.note(f"If the storage holds backups already, 'ctl {how}' lists them")
