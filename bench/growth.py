"""How time and memory grow with the data and with the number of backups kept."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any, Final

from agent.store.connection import open_control
from agent.store.operation_log import OperationLog
from agent.wire.operations import Kind, State
from agent.wire.specs import BackupSpec
from bench import datasets
from bench.rig import Rig
from bench.scenarios import Row

UNIT = 0.05
"""Share of set A that counts as ×1."""
BACKUP_WITHIN_S: Final = 60.0


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
                done = rig.ask("backup", "--wait")
            backup, name = cost(), done["name"]
            with rig.measured() as cost:
                rig.ask("restore", name, "-y", "--wait")
            rows.append(
                {
                    "what": f"data ×{times}",
                    "BSON MB": size / 1e6,
                    "backup s": rig.inside_s(done["op_id"]),
                    "restore s": cost().wall_s,
                    "backup peak MiB": backup.agent_peak_mib,
                    "restore peak MiB": cost().agent_peak_mib,
                }
            )
            rig.empty_repository()
    return rows


def kept(scale: float, rounds: int) -> list[Row]:
    """list, status, resync, cleanup and the deletion of one with 10, 100 and 1,000 backups kept;
    fewer at small scales."""
    rows: list[Row] = []
    with Rig() as rig:
        rig.client.bench.few.insert_many({"_id": i} for i in range(100))
        taken = 0
        for wanted in (10, 100, int(1_000 * min(1.0, scale * 2))):
            asyncio.run(_back_up(rig, wanted - taken))
            taken = wanted
            rows.append(
                {
                    "what": f"{taken} backups kept",
                    "list s": _seconds(rig, "list"),
                    "status s": _seconds(rig, "status"),
                    "resync s": _seconds(rig, "config", "--force-resync", "--wait"),
                    "cleanup s": _seconds(rig, "cleanup", "-y", "--wait"),
                    "delete of one s": _delete_oldest(rig),
                    "agent RSS MiB": _rss_mib(rig),
                }
            )
            taken -= 1
    return rows


async def _back_up(rig: Rig, count: int) -> None:
    """So many backups, one behind the other, without a process of `ctl` for each."""
    control = await open_control(rig.replset.uri(), app_name="bench")
    try:
        log = OperationLog(control)
        spec = BackupSpec().to_document()
        for _ in range(count):
            asked = await log.submit(Kind.BACKUP, spec, requested_by="bench")
            async with asyncio.timeout(BACKUP_WITHIN_S):
                while not (found := await log.get(asked.id)).state.is_terminal:
                    await asyncio.sleep(0.01)
            assert found.state is State.DONE, found.error
    finally:
        await control.aclose()


def _seconds(rig: Rig, *arguments: str) -> float:
    """The median of three runs of `ctl`."""
    taken = []
    for _ in range(3):
        begun = time.monotonic()
        rig.ask(*arguments)
        taken.append(time.monotonic() - begun)
    return median(taken)


def _delete_oldest(rig: Rig) -> float:
    oldest: Any = min(backup["name"] for backup in rig.ask("list")["snapshots"])
    begun = time.monotonic()
    rig.ask("delete-backup", oldest, "-y", "--wait")
    return time.monotonic() - begun


def _rss_mib(rig: Rig) -> float:
    found = rig.client.admin.tidelogAgents.find_one({})
    return float(found["rss_bytes"]) / (1 << 20)
