"""Backups as `list`, `status` and the page show them, as plain JSON values."""

from __future__ import annotations

from typing import Any

from agent.wire.backups import Backup
from agent.wire.operations import Operation

Snapshot = dict[str, Any]


def of_backup(backup: Backup) -> Snapshot:
    """A published one."""
    return {
        "name": backup.id,
        "status": "done",
        "type": backup.type,
        "profile": backup.profile,
        "selective": backup.is_selective,
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
    }


def of_operation(operation: Operation) -> Snapshot:
    """One that is not published, or not yet."""
    spec = operation.spec
    return {
        "name": operation.name,
        "status": operation.state.value,
        "type": spec.get("type", "logical"),
        "profile": spec.get("profile", "main"),
        "selective": bool(spec.get("ns") or spec.get("exclude_ns")),
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
    }
