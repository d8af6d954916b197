"""How time and memory grow with the data and with the number of backups kept."""

from __future__ import annotations

import time
from typing import Any

from bench import datasets
from bench.rig import Rig
from bench.scenarios import Row

UNIT = 0.05
"""Share of set A that counts as ×1."""


def data(scale: float, rounds: int) -> list[Row]:
    """Backup and restore of ×1, ×4 and ×16."""
    rows: list[Row] = []
    with Rig() as rig:
        for times in (1, 4, 16):
            rig.client.drop_database("bench")
            datasets.load_a(rig.client, UNIT * scale * times)
            rig.settle()
            size = rig.client.bench.command("dbStats")["dataSize"]
            with rig.measured() as cost:
                name = rig.ask("backup", "--wait")["name"]
            backup = cost()
            with rig.measured() as cost:
                rig.ask("restore", name, "-y", "--wait")
            rows.append(
                {
                    "what": f"data ×{times}",
                    "BSON MB": size / 1e6,
                    "backup s": backup.wall_s,
                    "restore s": cost().wall_s,
                    "backup peak MiB": backup.agent_peak_mib,
                    "restore peak MiB": cost().agent_peak_mib,
                }
            )
            rig.empty_repository()
    return rows


def kept(scale: float, rounds: int) -> list[Row]:
    """list, status, resync and delete with 10, 100 and 1,000 backups kept."""
    rows: list[Row] = []
    with Rig() as rig:
        rig.client.bench.few.insert_many({"_id": i} for i in range(100))
        taken = 0
        for wanted in (10, 100, int(1_000 * min(1.0, scale * 10))):
            while taken < wanted:
                rig.ask("backup", "--wait")
                taken += 1
            rows.append(
                {
                    "what": f"{taken} backups kept",
                    "list s": _seconds(rig, "list"),
                    "status s": _seconds(rig, "status"),
                    "resync s": _seconds(rig, "config", "--force-resync", "--wait"),
                    "delete of one s": _delete_oldest(rig),
                    "agent RSS MiB": _rss_mib(rig),
                }
            )
            taken -= 1
    return rows


def _seconds(rig: Rig, *arguments: str) -> float:
    begun = time.monotonic()
    rig.ask(*arguments)
    return time.monotonic() - begun


def _delete_oldest(rig: Rig) -> float:
    oldest: Any = min(backup["name"] for backup in rig.ask("list")["snapshots"])
    return _seconds(rig, "delete-backup", oldest, "-y", "--wait")


def _rss_mib(rig: Rig) -> float:
    found = rig.client.admin.tidelogAgents.find_one({})
    return float(found["rss_bytes"]) / (1 << 20)
