"""Set E: one collection of 5 GB, too large to be read whole."""

from __future__ import annotations

from bench import datasets
from bench.rig import Measure, Rig
from bench.scenarios import Backups, Row, measured_row


def large_collection(scale: float, rounds: int) -> list[Row]:
    """Backup beside the raw drains that compress what they read, in ranges and in natural order,
    and beside mongod's CPU of a scan; and its restore."""
    with Rig() as rig:
        datasets.load_e(rig.client, scale)
        rig.settle()
        size = rig.client.bench.command("dbStats")["dataSize"]
        backups, restores = Backups(rig), list[Measure]()
        for _ in range(rounds):
            name = backups.take()
            backups.drain()
            with rig.measured() as cost:
                rig.ask("restore", name, "-y", "--wait")
            restores.append(cost())
            rig.settle()
            rig.empty_repository()
        return [
            backups.row("backup of E", size),
            measured_row("restore of E", restores, size),
        ]
