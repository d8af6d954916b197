"""How this agent looks at a storage: the short look that elections and status go by, and the long
one that `ctl storage check` asks for."""

from __future__ import annotations

from contextlib import suppress

from agent.errors import StoreUnavailable, TidelogError
from agent.operations.context import Services
from agent.operations.copies import opened
from agent.operations.repository import Marker, looked_at, read_marker
from agent.storage.answers import was_reached
from agent.storage.base import Storage
from agent.storage.describing import ending_in_words
from agent.storage.examining import Examination, examine
from agent.storage.observing import StorageCounters
from agent.storage.registry import StorageOptions, open_bare
from agent.wire.profiles import storage_of, with_storage
from agent.wire.settings import Settings
from agent.wire.storage_reports import StorageCheckRequest, StorageReport


async def check_storage(
    services: Services, settings: Settings, profile: str, counters: StorageCounters
) -> str | None:
    """Prove that it can be used; answers what is worth a warning. Raises `TidelogError`, and soon
    where nothing answers: somebody who has just written the settings waits for it."""
    hasty = with_storage(settings, profile, storage_of(settings, profile).impatient())
    async with opened(services, hasty, profile) as storage:
        await storage.verify()
        with suppress(StoreUnavailable):  # no fault of the storage
            await looked_at(services, settings, profile, storage)
    return ending_in_words(counters.credentials_left_s)


async def report_on(services: Services, request: StorageCheckRequest) -> StorageReport:
    """Try everything, with the settings of now. Raises what reading them raises."""
    settings, _ = await services.settings.read()
    chosen = storage_of(settings, request.profile)
    blank = StorageReport(
        id=request.id, node=services.node.id, profile=request.profile, type=chosen.type
    )
    try:
        storage = await open_bare(
            chosen, StorageOptions(node=services.node.host), clock=services.clock
        )
        try:
            return await _report(services, storage, request, blank)
        finally:
            await storage.aclose()
    except TidelogError as error:
        return blank.model_copy(update={"error": error.message, "hint": error.hint})


async def _report(
    services: Services, storage: Storage, request: StorageCheckRequest, blank: StorageReport
) -> StorageReport:
    found = await examine(storage, services.clock, request.measure_bytes)
    marker = await _marker(storage)
    facts = found.description
    is_foreign = marker is not None and marker.cluster_id != services.cluster_id
    return blank.model_copy(
        update={
            "address": storage.address,
            "error": found.first_error.message if found.first_error else None,
            "hint": found.first_error.hint if found.first_error else "",
            "permissions": tuple(found.permissions),
            "identity": facts.identity,
            "credentials": facts.credentials,
            "tls": facts.tls if was_reached(found.first_error) else None,
            "region": facts.region,
            "clock_skew_s": facts.clock_skew_s,
            "versioning": facts.versioning,
            "object_lock": facts.object_lock,
            "encryption": facts.encryption,
            "public": facts.public,
            "free_bytes": facts.free_bytes,
            "write_bytes_s": found.write_bytes_s,
            "read_bytes_s": found.read_bytes_s,
            "repository_id": marker.repository_id if marker else None,
            "owner": marker.cluster_id if marker else None,
            "is_foreign": is_foreign,
            "warnings": (*facts.warnings, *_of_examination(found, marker, is_foreign)),
        }
    )


def _of_examination(found: Examination, marker: Marker | None, is_foreign: bool) -> tuple[str, ...]:
    if not is_foreign or marker is None:
        return ()
    return (
        f"the repository belongs to cluster {marker.cluster_id}: this one may restore from it;"
        " 'ctl storage adopt' takes it over",
    )


async def _marker(storage: Storage) -> Marker | None:
    try:
        return await read_marker(storage)
    except TidelogError:
        return None  # the permissions say why
