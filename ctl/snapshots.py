"""Backups as `list` and `status` show them, as plain JSON values and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent.wire.operations import Operation
from ctl.render import moment, size, state, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.wire.backups import Backup

_ERROR_WIDTH = 30
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


def snapshot_table(snapshots: Sequence[Snapshot], backups: Sequence[Backup]) -> RenderableType:
    """One line a backup."""
    times = {backup.id: moment(backup.last_write.wall()) for backup in backups}
    rows = []
    for item in snapshots:
        words = item["status"]
        if item["error"]:
            words = f"{words}: {shortened(item['error'])}"
        cell = state(words)
        cell.stylize(state(item["status"]).style)
        rows.append(
            (
                item["name"],
                size(item["size"]),
                item["type"],
                item["profile"],
                "yes" if item["selective"] else "no",
                times.get(item["name"], "-"),
                cell,
            )
        )
    columns = ("NAME", "SIZE>", "TYPE", "PROFILE", "SELECTIVE", "RESTORE TIME", "STATUS~")
    return table(columns, rows, indent=2)


def shortened(text: str, width: int = _ERROR_WIDTH) -> str:
    """The beginning of a long sentence."""
    return text if len(text) <= width else text[: width - 1] + "…"
