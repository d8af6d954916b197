"""The storages that one backup is written to, and those of them that were lost on the way.

Several storages get one backup from one reading of the database. One that fails for good is left
out, and the backup goes on for the others: losing the copy that could not be made is no reason to
lose those that could. The loss is recorded where everybody looks before the backup counts on the
others alone, and the backup ends as done with the lost copies named; `ctl` then says so and exits
with 1. Where no storage is left, the error of the last one is the backup's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import structlog

from agent.archive.layout import journal_prefix
from agent.archive.vault import with_one_key
from agent.errors import StoreUnavailable, Superseded, TidelogError, root_cause
from agent.operations.context import PartContext, Services
from agent.storage.base import Storage
from agent.storage.fanout import FanOut
from agent.wire.operations import Operation
from agent.wire.settings import Settings
from agent.wire.specs import BackupSpec

LOST: Final = "lost"
"""Field of a result: `{profile: {message, hint}}`."""

_NOT_OF_STORAGE: Final = (Superseded, StoreUnavailable)

Losses = dict[str, dict[str, str]]
log = structlog.stdlib.get_logger()


def told(error: TidelogError) -> dict[str, str]:
    """A loss as results keep it."""
    return {"message": error.message, "hint": error.hint}


def losses(*results: Mapping[str, Any]) -> Losses:
    """All that these results tell of."""
    return {name: why for result in results for name, why in result.get(LOST, {}).items()}


def losses_of(operation: Operation) -> Losses:
    """What the lead and all parts have lost."""
    return losses(operation.result, *(part.result for part in operation.parts))


def whole_story(lost: Losses) -> str:
    """All losses in one line."""
    return "; ".join(f"{profile}: {why['message']}" for profile, why in sorted(lost.items()))


async def for_each(
    profiles: Iterable[str], act: Callable[[str], Awaitable[None]]
) -> tuple[list[str], Losses]:
    """Do something with each storage; which ones it worked with, and why not with the others.
    Raises the first error where it worked with none."""
    worked: list[str] = []
    errors: dict[str, TidelogError] = {}
    for profile in profiles:
        try:
            await act(profile)
        except (TidelogError, ExceptionGroup) as raised:
            cause = root_cause(raised)
            # What is no fault of the storage: this agent may not act, or cannot write it down.
            if not isinstance(cause, TidelogError) or isinstance(cause, _NOT_OF_STORAGE):
                raise
            errors[profile] = cause
        else:
            worked.append(profile)
    if errors and not worked:
        raise next(iter(errors.values()))
    for profile, lost in errors.items():
        log.error("backup.copy_lost", profile=profile, error=str(lost), hint=lost.hint)
    return worked, {profile: told(lost) for profile, lost in errors.items()}


async def open_targets(part: PartContext, spec: BackupSpec) -> Storage:
    """What one worker writes to: the one storage, or all that are left as one."""
    services, settings = part.services, part.settings
    if len(spec.targets) == 1:
        return await services.open_storage(settings, spec.targets[0])
    share = part.operation.part(part.replset)
    lost = losses(part.operation.result, share.result if share is not None else {})
    left = [profile for profile in spec.targets if profile not in lost]
    opened, failed = await _opened(services, settings, left)
    lost |= failed

    async def on_loss(profile: str, error: TidelogError) -> None:
        log.error("backup.copy_lost", profile=profile, error=str(error), hint=error.hint)
        lost[profile] = told(error)
        await part.record({LOST: dict(lost)})

    storage = FanOut(opened, on_loss)
    try:
        if failed:
            await part.record({LOST: dict(lost)})
        await storage.level(journal_prefix(part.operation.name, part.replset))
    except BaseException:
        await storage.aclose()
        raise
    return await with_one_key(storage, list(opened.values()))


async def _opened(
    services: Services, settings: Settings, profiles: Iterable[str]
) -> tuple[dict[str, Storage], Losses]:
    opened: dict[str, Storage] = {}

    async def open_one(profile: str) -> None:
        opened[profile] = await services.open_storage(settings, profile)

    try:
        _, failed = await for_each(profiles, open_one)
    except BaseException:
        for storage in opened.values():
            await storage.aclose()
        raise
    return opened, failed
