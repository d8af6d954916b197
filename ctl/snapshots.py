"""Backups as `list` and `status` show them to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.wire.snapshots import Snapshot, of_backup, of_operation
from ctl.render import duration, moment, size, state, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.wire.backups import Backup

__all__ = ["Snapshot", "of_backup", "of_operation", "shortened", "snapshot_table"]

_ERROR_WIDTH = 30
_ENCRYPTED = {True: "yes", False: "no", None: "-"}


def snapshot_table(snapshots: Sequence[Snapshot], backups: Sequence[Backup]) -> RenderableType:
    """One line a backup. Where any is encrypted, each says whether it is."""
    shows_encryption = any(item["encrypted"] for item in snapshots)
    times = {backup.id: moment(backup.last_write.wall()) for backup in backups}
    rows = []
    for item in snapshots:
        words = item["status"]
        if item["error"]:
            words = f"{words}: {shortened(item['error'])}"
        elif item["verified"] and item["verified"]["harmed"]:
            words = f"done, HARMED ({item['verified']['harmed']})"
        elif item["proved"] and item["available"]:
            words = f"done, PROVED in {duration(item['proved']['recovery_s'])}"
        elif item["status"] == "done" and not item["available"]:
            words = "out of reach: no profile leads to its repository"
        cell = state(words)
        if item["available"] or item["status"] != "done":
            cell.stylize(state(item["status"]).style)
        rows.append(
            (
                item["name"],
                size(item["size"]),
                item["type"],
                ", ".join(item["profiles"]) or "-",
                "yes" if item["selective"] else "no",
                *([_ENCRYPTED[item["encrypted"]]] if shows_encryption else []),
                times.get(item["name"], "-"),
                cell,
            )
        )
    further = ("ENCRYPTED",) if shows_encryption else ()
    columns = ("NAME", "SIZE>", "TYPE", "PROFILE", "SELECTIVE", *further, "RESTORE TIME", "STATUS~")
    return table(columns, rows, indent=2)


def shortened(text: str, width: int = _ERROR_WIDTH) -> str:
    """The beginning of a long sentence."""
    return text if len(text) <= width else text[: width - 1] + "…"
