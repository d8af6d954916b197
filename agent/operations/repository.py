"""The repository marker: which repository this is, and which cluster may write to it.

The marker is written once and never changed. A cluster that adopts the repository of another adds a
small object of its own under `owners/`; the last of them says whose it is. So nothing is written
twice, and of two clusters that adopt it at once one is told that the other was first.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from typing import Final

from pydantic import Field, ValidationError

from agent.archive.layout import FORMAT_VERSION, MARKER, OWNERS, owner_key
from agent.errors import (
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    Refused,
    UnsupportedVersion,
)
from agent.faults import fault_point
from agent.operations.context import Services
from agent.storage.base import Storage, get_bytes, put_bytes
from agent.wire.profiles import place_of, storage_of
from agent.wire.record import Record
from agent.wire.repositories import Found
from agent.wire.settings import Settings

_READABLE: Final = FORMAT_VERSION
ADOPT_HINT: Final = (
    "give this cluster a prefix of its own, or take the repository over with 'ctl storage adopt'; "
    "it may restore from it as it is"
)


class Marker(Record):
    """`tidelog.json`, written once when a cluster first writes to an empty prefix."""

    repository_id: str
    format_version: int = FORMAT_VERSION
    cluster_id: str
    """The cluster that owns the repository: others may read it and are refused writes. Once read,
    the last one that adopted it."""
    encryption: dict[str, str] = Field(default_factory=dict)


class Adoption(Record):
    """`owners/<n>.json`: a cluster made the repository its own."""

    cluster_id: str
    former: str
    """Whose it was."""


async def read_marker(storage: Storage) -> Marker | None:
    """The marker with the owner of now, None where there is none. Raises `UnsupportedVersion`,
    `IntegrityError`."""
    try:
        data = await get_bytes(storage, MARKER)
    except ObjectNotFound:
        return None
    try:
        version = int(json.loads(data)["format_version"])
        if version > _READABLE:
            raise UnsupportedVersion(
                f"the repository at {storage.address} has format version {version}, and this agent "
                f"knows up to {_READABLE}"
            )
        marker = Marker.model_validate_json(data)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{MARKER} on {storage.address} cannot be read: {error}") from error
    adoptions = await _adoptions(storage)
    if not adoptions:
        return marker
    last = await _adoption(storage, adoptions[-1])
    return marker.model_copy(update={"cluster_id": last.cluster_id})


async def claim(storage: Storage, cluster_id: str) -> Marker:
    """The marker of a repository that this cluster may write to; an empty prefix becomes its own.

    Raises `Refused` for the repository of another cluster.
    """
    marker = await _made(storage, cluster_id)
    if marker.cluster_id != cluster_id:
        raise Refused(
            f"the repository at {storage.address} belongs to another cluster "
            f"({marker.cluster_id}, this is {cluster_id})",
            hint=ADOPT_HINT,
        )
    return marker


async def adopt(storage: Storage, cluster_id: str, expected: str | None = None) -> tuple[str, str]:
    """Make the repository this cluster's own; answers `(repository id, former owner)`.

    `expected` is the owner that a person saw and agreed to replace. Raises `Refused` when it is
    another by now.
    """
    marker = await _made(storage, cluster_id)
    former = marker.cluster_id
    if former == cluster_id:
        return marker.repository_id, former
    if expected not in (None, former):
        raise Refused(
            f"the repository at {storage.address} belongs to {former} by now, not to {expected}",
            hint="look at it again, and adopt it then",
        )
    number = len(await _adoptions(storage)) + 1
    record = Adoption(cluster_id=cluster_id, former=former)
    with suppress(ObjectExists):  # two at once: whose it is now is read below
        await put_bytes(storage, owner_key(number), record.model_dump_json(indent=1).encode())
    await fault_point("adopt.owner_written")
    await claim(storage, cluster_id)
    return marker.repository_id, former


async def claimed(services: Services, settings: Settings, profile: str, storage: Storage) -> Marker:
    """`claim`, and everybody is told what the profile leads to."""
    try:
        marker = await claim(storage, services.cluster_id)
    except Refused:
        await looked_at(services, settings, profile, storage)
        raise
    await _note(services, settings, profile, storage, marker)
    return marker


async def looked_at(
    services: Services, settings: Settings, profile: str, storage: Storage
) -> Marker | None:
    """`read_marker`, and everybody is told what the profile leads to."""
    marker = await read_marker(storage)
    await _note(services, settings, profile, storage, marker)
    return marker


async def _note(
    services: Services, settings: Settings, profile: str, storage: Storage, marker: Marker | None
) -> None:
    await services.repositories.note(
        Found(
            profile=profile,
            place=place_of(storage_of(settings, profile)),
            address=storage.address,
            repository_id=marker.repository_id if marker else None,
            cluster_id=marker.cluster_id if marker else None,
            by_node=services.node.id,
        )
    )


async def _made(storage: Storage, cluster_id: str) -> Marker:
    marker = await read_marker(storage)
    if marker is None:
        fresh = Marker(repository_id=secrets.token_hex(12), cluster_id=cluster_id)
        try:
            await put_bytes(storage, MARKER, fresh.model_dump_json(indent=1).encode())
            return fresh
        except ObjectExists:
            marker = await read_marker(storage)
    if marker is None:
        raise IntegrityError(f"{MARKER} on {storage.address} comes and goes")
    return marker


async def _adoptions(storage: Storage) -> list[str]:
    return [item.key async for item in storage.list(OWNERS)]


async def _adoption(storage: Storage, key: str) -> Adoption:
    data = await get_bytes(storage, key)
    try:
        return Adoption.model_validate_json(data)
    except ValidationError as error:
        raise IntegrityError(f"{key} on {storage.address} cannot be read: {error}") from error
