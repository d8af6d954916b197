"""Overviews to look at: a cluster with a history, and the same with one thing wrong at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.coordination.heartbeat import Condition
from agent.storage.observing import StorageCounters
from agent.web.model import Local, View
from agent.wire.backups import Backup
from agent.wire.leases import Lease, node_scope, slicer_scope
from agent.wire.nodes import NodeStatus, Role
from agent.wire.operations import HistoryEntry, Kind, Operation, Part, Progress, State
from agent.wire.optime import OpTime
from agent.wire.overview import Overview
from agent.wire.settings import from_mapping
from agent.wire.timelines import Gap, GapCause, Run

NOW_T = int(datetime(2026, 11, 22, 3, 16, 7, tzinfo=UTC).timestamp())
HOUR, DAY = 3600, 86400
CLUSTER = "6b0295b0f912d5088c03875a"


def at(seconds_ago: float) -> datetime:
    """A moment before now."""
    return datetime.fromtimestamp(NOW_T, UTC) - timedelta(seconds=seconds_ago)


def optime(seconds_ago: float) -> OpTime:
    """The same as an OpTime."""
    return OpTime(T=int(NOW_T - seconds_ago), I=1)


def a_backup(seconds_ago: float, **changes: Any) -> Backup:
    """One that restores to a moment before now, and took a quarter of an hour."""
    name = f"{at(seconds_ago + 900):%Y-%m-%dT%H:%M:%SZ}"
    facts: dict[str, Any] = {
        "_id": name,
        "op_id": f"{int(NOW_T - seconds_ago):024x}",
        "format_version": 1,
        "repository_id": "r",
        "cluster_id": CLUSTER,
        "mongodb_version": "6.0.5",
        "fcv": "6.0",
        "tidelog_version": "0.1.0",
        "first_write": optime(seconds_ago + 900),
        "last_write": optime(seconds_ago),
        "started_at": at(seconds_ago + 900),
        "compression": "zstd",
        "replsets": (),
        "size_bytes": int(183.4 * (1 << 30) - seconds_ago * 9000),
        "size_uncompressed_bytes": 710 << 30,
    }
    return Backup.model_validate({**facts, **changes})


def a_run(replset: str, start_ago: float, end_ago: float, **changes: Any) -> Run:
    """A stretch of archived oplog."""
    facts: dict[str, Any] = {
        "_id": f"{replset}/{int(start_ago)}",
        "replset": replset,
        "start": optime(start_ago),
        "end": optime(end_ago),
        "covered_until": optime(end_ago),
        "epoch": 7,
        "slices": 9000,
        "size_bytes": 3 << 30,
    }
    return Run.model_validate({**facts, **changes})


def an_operation(kind: Kind, seconds_ago: float, **changes: Any) -> Operation:
    """One that ended well in ten minutes."""
    facts: dict[str, Any] = {
        "_id": f"{int(seconds_ago):024x}",
        "kind": kind,
        "name": f"{at(seconds_ago):%Y-%m-%dT%H:%M:%SZ}",
        "state": State.DONE,
        "requested_at": at(seconds_ago),
        "finished_at": at(seconds_ago - 600),
        "updated_at": at(seconds_ago - 600),
    }
    return Operation.model_validate({**facts, **changes})


def a_running_backup() -> Operation:
    """Two thirds done."""
    parts = [
        Part(
            replset=replset,
            state=State.RUNNING,
            node=f"{replset}/db{number}.example.com:27017",
            progress=Progress(
                stage="reading", bytes_done=done << 30, bytes_total=240 << 30, documents_done=7
            ),
        )
        for replset, number, done in (("shard-a", 2, 171), ("shard-b", 5, 149))
    ]
    return an_operation(
        Kind.BACKUP,
        412,
        state=State.RUNNING,
        finished_at=None,
        updated_at=at(1),
        parts=tuple(parts),
        history=(HistoryEntry(at=at(405), state="running"),),
    )


def a_node(replset: str, host: str, role: Role = Role.SECONDARY, **changes: Any) -> NodeStatus:
    """An agent that is well."""
    facts: dict[str, Any] = {
        "_id": f"{replset}/{host}",
        "replset": replset,
        "host": host,
        "role": role,
        "agent_version": "0.1.0",
        "mongodb_version": "6.0.5",
        "age_s": 1.2,
    }
    return NodeStatus.model_validate({**facts, **changes})


def a_lease(scope: str, owner: str, epoch: int = 3) -> Lease:
    """Held for some seconds yet."""
    return Lease.model_validate(
        {"_id": scope, "owner": owner, "epoch": epoch, "expires_at": at(-8), "remaining_s": 8.0}
    )


def good(**changes: Any) -> Overview:
    """Two shards and their config servers, backed up daily for two weeks, archived all the time."""
    sets = {"config": (7, 8, 9), "shard-a": (1, 2, 3), "shard-b": (4, 5, 6)}
    nodes = tuple(
        a_node(
            replset,
            f"{'cfg' if replset == 'config' else 'db'}{number}.example.com:27017",
            (Role.PRIMARY, Role.SECONDARY, Role.HIDDEN)[place],
        )
        for replset, numbers in sets.items()
        for place, number in enumerate(numbers)
    )
    backups = tuple(a_backup(day * DAY + 4200) for day in range(12, -1, -1))
    proof = an_operation(
        Kind.RESTORE,
        2 * DAY,
        spec={"backup": backups[-3].id},
        result={"backup": backups[-3].id, "restored_to": optime(2 * DAY + 600).to_json()},
    )
    made = tuple(
        an_operation(
            Kind.BACKUP,
            NOW_T - b.started_at.timestamp(),
            name=b.id,
            _id=b.op_id,
            finished_at=b.last_write.wall(),
        )
        for b in reversed(backups)
    )
    slicers = {
        slicer_scope(node.replset): a_lease(slicer_scope(node.replset), node.id)
        for node in nodes[2::3]
    }
    owners = {node_scope(n.id): a_lease(node_scope(n.id), "host pid 1") for n in nodes}
    facts: dict[str, Any] = {
        "now": OpTime(T=NOW_T, I=1),
        "replset": "config",
        "members": (),
        "nodes": nodes,
        "settings": from_mapping(
            {
                "storage": {"type": "s3", "s3": {"bucket": "backups", "prefix": "shop"}},
                "pitr": {"enabled": True},
            }
        ),
        "active": (),
        "recent": (*made, proof),
        "backups": backups,
        "leases": {**slicers, **owners},
        "runs": tuple(a_run(name, 12.1 * DAY, 8) for name in sets),
        "gaps": (),
        "server_time": datetime.fromtimestamp(NOW_T, UTC),
    }
    return Overview(**{**facts, **changes})


def holed() -> Overview:
    """An oplog that rolled over on one shard half a day ago, a failed backup, a dead agent."""
    whole = good()
    gap = Gap(
        replset="shard-b",
        start=optime(0.74 * DAY),
        end=optime(0.6 * DAY),
        cause=GapCause.OVERRUN,
        message="the oplog of db5.example.com:27017 begins at 1795278000,1",
        at=at(0.6 * DAY),
    )
    runs = [run for run in whole.runs if run.replset != "shard-b"]
    runs += [a_run("shard-b", 12.1 * DAY, 0.74 * DAY), a_run("shard-b", 0.6 * DAY, 8)]
    failed = an_operation(
        Kind.BACKUP,
        0.02 * DAY,
        state=State.FAILED,
        error={
            "type": "StorageUnavailable",
            "message": "the storage s3://backups/shop does not answer: connection refused",
            "hint": "check the endpoint and the network between agent and storage",
        },
    )
    nodes = [
        node.model_copy(update={"age_s": 372.0}) if node.host.startswith("db3.") else node
        for node in whole.nodes
    ]
    return replace(
        whole,
        runs=tuple(runs),
        gaps=(gap,),
        recent=(failed, *whole.recent),
        nodes=tuple(nodes),
        active=(a_running_backup(),),
    )


class QuietHeartbeat:
    """A heartbeat that has just been answered."""

    def __init__(self, latest: NodeStatus | None) -> None:
        self.latest = latest
        self.silent_s = 1.5
        self.condition = Condition()


def view_of(overview: Overview | None, **changes: Any) -> View:
    """What an agent of the lead replica set would show of it."""
    own = a_node("config", "cfg7.example.com:27017", Role.PRIMARY)
    heartbeat: Any = QuietHeartbeat(own)
    local = Local(
        node=own.id,
        replset=own.replset,
        host=own.host,
        cluster_id=CLUSTER,
        lead_replset="config",
        heartbeat=heartbeat,
        storages={"main": StorageCounters()},
        events={"lease.renewal_failed": 0, "agent.started": 1},
        dropped_events=lambda: 0,
    )
    facts: dict[str, Any] = {
        "local": local,
        "overview": overview,
        "age_s": 0.4,
        "error": None,
        "clock_offset_s": 0.02,
        "oplog": (optime(2 * DAY), optime(1)),
        "now_s": 1000.0,
    }
    return View(**{**facts, **changes})
