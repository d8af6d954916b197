"""Backups as `list`, `status` and the page show them, as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.wire.backups import Backup
from agent.wire.operations import Operation
from agent.wire.specs import BackupSpec

Snapshot = dict[str, Any]


def of_backup(backup: Backup, profiles: Sequence[str] | None = None) -> Snapshot:
    """A published one, and the profiles that lead to it now."""
    if profiles is None:
        profiles = [copy.profile for copy in backup.places]
    return {
        "name": backup.id,
        "status": "done",
        "type": backup.type,
        "profile": profiles[0] if profiles else None,
        "profiles": list(profiles),
        "available": bool(profiles),
        "repository_id": backup.repository_id,
        "selective": backup.is_selective,
        "encrypted": backup.encryption is not None,
        "base": True,
        "restoreTo": backup.last_write.T,
        "last_write": backup.last_write.to_json(),
        "size": backup.size_bytes,
        "size_uncompressed": backup.size_uncompressed_bytes,
        "mongodb_version": backup.mongodb_version,
        "error": None,
        "ns": list(backup.ns),
        "hold": backup.hold,
        "op_id": backup.op_id,
        "verified": backup.verdict.to_json() if backup.verdict is not None else None,
        "proved": backup.proof.to_json() if backup.proof is not None else None,
    }


def of_operation(operation: Operation) -> Snapshot:
    """One that is not published, or not yet."""
    spec = operation.spec
    return {
        "name": operation.name,
        "status": operation.state.value,
        "type": spec.get("type", "logical"),
        "profile": BackupSpec.from_document(spec).targets[0],
        "profiles": list(BackupSpec.from_document(spec).targets),
        "available": False,
        "repository_id": None,
        "selective": bool(spec.get("ns") or spec.get("exclude_ns")),
        "encrypted": None,
        "base": False,
        "restoreTo": None,
        "last_write": None,
        "size": None,
        "size_uncompressed": None,
        "mongodb_version": None,
        "error": operation.error.message if operation.error is not None else None,
        "ns": list(spec.get("ns") or ()),
        "hold": spec.get("hold"),
        "op_id": operation.id,
        "verified": None,
        "proved": None,
    }
