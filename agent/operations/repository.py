"""The repository marker: which repository this is, and which cluster may write to it."""

from __future__ import annotations

import json
import secrets
from typing import Final

from pydantic import Field

from agent.archive.layout import FORMAT_VERSION, MARKER
from agent.errors import IntegrityError, ObjectExists, ObjectNotFound, Refused, UnsupportedVersion
from agent.storage.base import Storage, get_bytes, put_bytes
from agent.wire.record import Record

_READABLE: Final = FORMAT_VERSION


class Marker(Record):
    """`tidelog.json`, written once when a cluster first writes to an empty prefix."""

    repository_id: str
    format_version: int = FORMAT_VERSION
    cluster_id: str
    """The cluster that owns the repository: others may read it and are refused writes."""
    encryption: dict[str, str] = Field(default_factory=dict)


async def read_marker(storage: Storage) -> Marker | None:
    """The marker, None where there is none. Raises `UnsupportedVersion`, `IntegrityError`."""
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
        return Marker.model_validate_json(data)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{MARKER} on {storage.address} cannot be read: {error}") from error


async def claim(storage: Storage, cluster_id: str) -> Marker:
    """The marker of a repository that this cluster may write to; an empty prefix becomes its own.

    Raises `Refused` for the repository of another cluster.
    """
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
    if marker.cluster_id != cluster_id:
        raise Refused(
            f"the repository at {storage.address} belongs to another cluster "
            f"({marker.cluster_id}, this is {cluster_id})",
            hint="give this cluster a prefix of its own; it may restore from that one as it is",
        )
    return marker
