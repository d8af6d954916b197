"""Each path of Tidelog beside its limit: rows of a table, by name.

A row is a table's line by column; a ratio is Tidelog's wall seconds over the limit's, both medians
of the alternating rounds.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from functools import partial
from statistics import median
from typing import Any

from bench import datasets, limits
from bench.many import Many
from bench.peers import beside
from bench.rig import Measure, Rig

Row = dict[str, Any]
LEVEL = 1
"""zstd's, of a backup by default."""
MANY = 5_000
"""From so many collections on a single round: each creation costs more the more there are, and a
restore takes minutes that are nearly all mongod's."""
FEW_FILES = (
    "--wiredTigerEngineConfigString",
    "file_manager=(close_idle_time=3,close_scan_interval=1,close_handle_minimum=100)",
)
"""A collection and each index are a file of their own: closed soon, thousands of them do not take
every descriptor that this machine may grant."""


class Backups:
    """Backups of a rig's `bench`, round by round: each beside a scan, and, where asked for, beside
    raw drains that compress what they read, in ranges and in natural order."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._runs = list[Measure]()
        self._scans = list[Measure]()
        self._inside = list[float]()
        self._drains = defaultdict[bool, list[float]](list)
        self._stored = (0, 0)

    def take(self) -> str:
        """One round; the backup's name."""
        rig = self._rig
        with rig.measured() as cost:
            limits.with_node(rig.uri, partial(limits.scan, database="bench"))
        self._scans.append(cost())
        with rig.measured() as cost:
            done = rig.ask("backup", "--wait")
        self._runs.append(cost())
        self._inside.append(rig.inside_s(done["op_id"]))
        self._stored = rig.stored()
        return str(done["name"])

    def drain(self) -> None:
        """One round of the limits."""
        drain = partial(limits.drain_compressed, database="bench", level=LEVEL)
        for is_whole in (False, True):
            found = limits.with_node(self._rig.uri, partial(drain, is_whole=is_whole))
            self._drains[is_whole].append(found)

    def row(self, what: str, size: int) -> Row:
        """All of it; medians."""
        drains = {is_whole: median(found) for is_whole, found in self._drains.items()}
        limit_s = min(drains.values(), default=None)
        row = measured_row(what, self._runs, size, limit_s)
        if limit_s is not None:
            row |= {
                "request to done s": median(self._inside),
                "ratio of that": over(median(self._inside), limit_s),
                "in ranges s": drains[False],
                "in natural order s": drains[True],
            }
        scan_cpu_s = median(scan.mongod_cpu_s for scan in self._scans)
        stored, objects = self._stored
        return row | {
            "mongod CPU of a serial scan s": scan_cpu_s,
            "mongod CPU ratio": over(row["mongod CPU s"], scan_cpu_s),
            "stored MB": stored / 1e6,
            "objects": objects,
        }


def backup_and_restore(scale: float, rounds: int) -> list[Row]:
    """Sets A and B: backup beside a raw drain that compresses what it reads and throws it away (and
    beside each of the two alone), restore beside raw inserts and index builds."""
    with Rig() as rig:
        datasets.load_a(rig.client, scale)
        datasets.load_b(rig.client, scale)
        rig.settle()
        size = rig.client.bench.command("dbStats")["dataSize"]
        backups, restores = Backups(rig), list[Measure]()
        limit = defaultdict[str, list[float]](list)
        for _ in range(rounds):
            name = backups.take()
            limit["copy"].append(limits.copy(rig.repository, rig.directory / "copy"))
            _raw_round(rig, backups, limit)
            with rig.measured() as cost:
                rig.ask("restore", name, "-y", "--wait")
            restores.append(cost())
            rig.settle()
            rig.empty_repository()
        limit_s = {name: median(values) for name, values in limit.items()}
        rows = [
            backups.row("backup of A+B", size)
            | {
                "raw drain s": limit_s["drain"],
                "compression s": limit_s["compression"],
                "copy of the objects s": limit_s["copy"],
            },
            measured_row("restore of A+B", restores, size, limit_s["insert"] + limit_s["indexes"])
            | {"raw insert s": limit_s["insert"], "index builds s": limit_s["indexes"]},
        ]
        return rows + beside(rig, size, rounds)


def _raw_round(rig: Rig, backups: Backups, limit: dict[str, list[float]]) -> None:
    """One round of the limits of set A+B."""
    drain_s, drained = limits.with_node(rig.uri, partial(limits.drain, database="bench"))
    limit["drain"].append(drain_s)
    limit["compression"].append(limits.compress(drained, LEVEL))
    backups.drain()
    fill = partial(limits.fill, drained=drained, database="bare")
    limit["insert"].append(limits.with_node(rig.uri, fill))
    build = partial(limits.build_indexes, source="bench", database="bare")
    limit["indexes"].append(limits.with_node(rig.uri, build))
    rig.client.drop_database("bare")
    rig.settle()


def many_collections(scale: float, rounds: int) -> list[Row]:
    """Set C: collections of five documents each, backed up, restored over themselves and restored
    after their database was dropped; beside raw commands, and what the peers ask of the server."""
    count = datasets.c_collections(scale)
    with Rig(arguments=FEW_FILES) as rig:
        datasets.load_c(rig.client, count)
        rig.settle()
        size = rig.client.many.command("dbStats")["dataSize"]
        limit = Many(rig, count)
        runs = defaultdict[str, list[Measure]](list)
        objects = 0
        rounds = min(rounds, 2 if count <= MANY else 1)
        for _ in range(rounds):
            limit.read()
            with rig.measured() as cost:
                name = rig.ask("backup", "--wait")["name"]
            runs["backup"].append(cost())
            objects = rig.stored()[1]
            with rig.measured() as cost:
                rig.ask("restore", name, "-y", "--wait")
            runs["restore"].append(cost())
            rig.client.drop_database("many")
            rig.settle()
            # With nothing else there: each creation costs more the more collections there are.
            limit.write()
            with rig.measured() as cost:
                rig.ask("restore", name, "-y", "--wait")
            runs["anew"].append(cost())
            rig.settle()
            rig.empty_repository()
        read, written = limit.median("raw finds"), limit.median("raw creates and inserts")
        dump, peer = limit.median("as mongodump"), limit.median("as mongorestore --drop")
        return [
            measured_row(f"backup of C, {count} collections", runs["backup"], size, read)
            | as_the_peer(runs["backup"], dump)
            | {"objects": objects},
            measured_row("restore of C over itself", runs["restore"], size, written)
            | as_the_peer(runs["restore"], peer),
            # What the peer is timed with begins by dropping; this does not.
            measured_row("restore of C, made anew", runs["anew"], size, written),
            *(
                {
                    "what": f"limit: {what}",
                    "wall s": median(run.wall_s for run in measures),
                    "mongod CPU s": median(run.mongod_cpu_s for run in measures),
                    "rounds": len(measures),
                }
                for what, measures in limit.measures.items()
            ),
            *beside(rig, size, rounds),
        ]


def as_the_peer(runs: list[Measure], peer_s: float) -> Row:
    """The peer's commands alone, and how many times as long they take."""
    wall = median(run.wall_s for run in runs)
    return {"as the peer s": peer_s, "peer / Tidelog": over(peer_s, wall)}


def moderate_collections(scale: float, rounds: int) -> list[Row]:
    """Set A in twelve collections: none needs ranges, so mongod should spend little more than on a
    scan; and the same in one collection."""
    with Rig() as rig:
        for number in range(12):
            datasets.load_a(rig.client, scale / 12, f"docs{number:02d}", seed=number)
        rig.settle()
        size = rig.client.bench.command("dbStats")["dataSize"]
        backups = Backups(rig)
        for _ in range(rounds):
            backups.take()
            rig.empty_repository()
        return [backups.row("backup of A in 12 collections", size)]


def replay(scale: float, rounds: int) -> list[Row]:
    """Set D: slicing it, and replaying it beside bare batches of the same operations."""
    with Rig() as rig:
        rig.enable_pitr()
        datasets.prepare_d(rig.client)
        name = rig.ask("backup", "--wait")["name"]
        begun = rig.client.admin.command("hello")["lastWrite"]["opTime"]["ts"]
        with rig.measured() as cost:
            count = datasets.write_d(rig.client, scale)
            at = rig.wait_covered()
        slicing = cost()
        before = rig.client.history.command("dbHash")["collections"]
        streams = limits.bare_operations(rig.client, begun, "history", "bare")
        bare, replays = list[float](), list[float]()
        applied, costs = 0, list[Measure]()
        for _ in range(rounds):
            datasets.prepare_d(rig.client, "bare")
            bare.append(limits.with_node(rig.uri, partial(limits.apply_bare, streams=streams)))
            rig.client.drop_database("bare")
            with rig.measured() as cost:
                done = rig.ask(
                    "restore", "--base-snapshot", name, "--time", f"{at[0]},{at[1]}", "-y", "--wait"
                )
            part = done["replsets"][0]
            applied = part["operations_applied"]
            replays.append(part["duration_s"]["replay"])
            costs.append(cost())
            assert rig.client.history.command("dbHash")["collections"] == before, "not exact"
        return [
            {
                "what": f"slicing {count} operations",
                "agent CPU s": slicing.agent_cpu_s,
                "agent peak MiB": slicing.agent_peak_mib,
            },
            {
                "what": f"replay of {applied} operations",
                "wall s": median(replays),
                "operations/s": applied / median(replays),
                "limit s": median(bare),
                "limit": f"{sum(map(len, streams))} operations in bare batches",
                "ratio": over(median(replays), median(bare)),
                "agent CPU s": median(each.agent_cpu_s for each in costs),
                "agent peak MiB": max(each.agent_peak_mib for each in costs),
            },
        ]


def control(scale: float, rounds: int) -> list[Row]:
    """An empty set: from the command to done, and what an idle agent costs."""
    with Rig() as rig:
        walls, inside = [], []
        for _ in range(max(5, rounds)):
            begun = time.monotonic()
            op_id = rig.ask("backup", "--wait")["op_id"]
            walls.append(time.monotonic() - begun)
            inside.append(rig.inside_s(op_id))
        rig.enable_pitr()
        time.sleep(5.0)
        idle_s = 30.0
        with rig.measured() as cost:
            # Within: measuring asks the agent for its metrics, and that one the server.
            counted = rig.client.admin.command("serverStatus")["opcounters"]
            time.sleep(idle_s)
            after = rig.client.admin.command("serverStatus")["opcounters"]
        kinds = ("insert", "query", "update", "delete", "getmore", "command")
        queries = sum(after[kind] - counted[kind] for kind in kinds)
        return [
            {
                "what": "backup of an empty set",
                "command to done s": median(inside),
                "with ctl's own start s": median(walls),
            },
            {
                "what": "idle agent, PITR on",
                "CPU % of a core": 100 * cost().agent_cpu_s / idle_s,
                "requests/s (server's own included)": queries / idle_s,
            },
        ]


def measured_row(what: str, runs: list[Measure], size: int, limit_s: float | None = None) -> Row:
    """What every row of runs has, over `size` bytes of BSON; medians."""
    wall = median(run.wall_s for run in runs)
    row: Row = {
        "what": what,
        "BSON MB": size / 1e6,
        "wall s": wall,
        "agent CPU s": median(run.agent_cpu_s for run in runs),
        "agent CPU s/GB": median(run.agent_cpu_s for run in runs) / (size / 1e9),
        "mongod CPU s": median(run.mongod_cpu_s for run in runs),
        "mongod CPU s/GB": median(run.mongod_cpu_s for run in runs) / (size / 1e9),
        "agent peak MiB": max(run.agent_peak_mib for run in runs),
        "requests": median(run.requests for run in runs),
        "rounds": len(runs),
    }
    if limit_s is not None:
        row |= {"limit s": limit_s, "ratio": over(wall, limit_s)}
    return row


def over(value: float, limit: float) -> float:
    """Their ratio."""
    return value / limit if limit else float("nan")


def to_json(rows: list[Row]) -> str:
    """Rounded to three digits, one row a line."""
    rounded = [
        {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    ]
    return json.dumps(rounded, indent=1, ensure_ascii=False)
