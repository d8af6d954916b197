"""Set E: one collection of 5 GB, too large to be read whole."""

from __future__ import annotations

from functools import partial
from statistics import median

from bench import datasets, limits
from bench.rig import Measure, Rig
from bench.scenarios import LEVEL, Row, measured_row, over


def large_collection(scale: float, rounds: int) -> list[Row]:
    """Backup beside the raw drains that compress what they read, in ranges and in natural order,
    and beside mongod's CPU of a scan; and its restore."""
    with Rig() as rig:
        datasets.load_e(rig.client, scale)
        rig.settle()
        size = rig.client.bench.command("dbStats")["dataSize"]
        backups, restores, scans = list[Measure](), list[Measure](), list[Measure]()
        inside, ranges, whole = list[float](), list[float](), list[float]()
        stored = objects = 0
        for _ in range(rounds):
            with rig.measured() as cost:
                limits.with_node(rig.uri, partial(limits.scan, database="bench"))
            scans.append(cost())
            with rig.measured() as cost:
                done = rig.ask("backup", "--wait")
            backups.append(cost())
            inside.append(rig.inside_s(done["op_id"]))
            stored, objects = rig.stored()
            for found, is_whole in ((ranges, False), (whole, True)):
                drain = partial(limits.drain_compressed, database="bench", level=LEVEL)
                found.append(limits.with_node(rig.uri, partial(drain, is_whole=is_whole)))
            with rig.measured() as cost:
                rig.ask("restore", done["name"], "-y", "--wait")
            restores.append(cost())
            rig.settle()
            rig.empty_repository()
        limit_s = min(median(ranges), median(whole))
        scan_cpu_s = median(scan.mongod_cpu_s for scan in scans)
        row = measured_row("backup of E", backups, size, limit_s)
        return [
            row
            | {
                "request to done s": median(inside),
                "ratio of that": over(median(inside), limit_s),
                "in ranges s": median(ranges),
                "in natural order s": median(whole),
                "mongod CPU of a serial scan s": scan_cpu_s,
                "mongod CPU ratio": over(row["mongod CPU s"], scan_cpu_s),
                "stored MB": stored / 1e6,
                "objects": objects,
            },
            measured_row("restore of E", restores, size),
        ]
