"""Backups as `list` and `status` show them to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.wire.profiles import MAIN
from agent.wire.snapshots import Snapshot, of_backup, of_operation
from ctl.render import duration, moment, size, state, table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from agent.wire.backups import Backup

__all__ = ["Snapshot", "of_backup", "of_operation", "shortened", "snapshot_table"]

_ERROR_WIDTH = 30
_ENCRYPTED = {True: "yes", False: "no", None: "-"}


def snapshot_table(snapshots: Sequence[Snapshot], backups: Sequence[Backup]) -> RenderableType:
    """One line a backup. Columns that would say the same of all are left out, so that the others
    have room: of which type, where, whether of all, whether encrypted."""
    times = {backup.id: moment(backup.last_write.wall()) for backup in backups}
    columns = {
        "NAME": [item["name"] for item in snapshots],
        "SIZE>": [size(item["size"]) for item in snapshots],
        **_telling("TYPE", [item["type"] for item in snapshots], "logical"),
        **_telling("PROFILE", [", ".join(item["profiles"]) or "-" for item in snapshots], MAIN),
        **_telling("SELECTIVE", ["yes" if item["selective"] else "no" for item in snapshots], "no"),
        **_telling("ENCRYPTED", [_ENCRYPTED[item["encrypted"]] for item in snapshots], "no"),
        "RESTORE TIME": [times.get(item["name"], "-") for item in snapshots],
        "STATUS~": [_status(item) for item in snapshots],
    }
    return table(list(columns), zip(*columns.values(), strict=True), indent=2)


def _telling(name: str, cells: list[str], usual: str) -> dict[str, list[str]]:
    return {name: cells} if set(cells) - {usual, "-"} else {}


def _status(item: Snapshot) -> Text:
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
    return cell


def shortened(text: str, width: int = _ERROR_WIDTH) -> str:
    """The beginning of a long sentence."""
    return text if len(text) <= width else text[: width - 1] + "…"
