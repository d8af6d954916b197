"""The cluster at a moment, as plain JSON values: for `ctl status`, the page and the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from agent.wire.backups import Backup
from agent.wire.coverage import Coverage
from agent.wire.leases import Lease, slicer_scope
from agent.wire.nodes import NodeStatus, Role
from agent.wire.operations import Kind, Operation, State, whole_progress
from agent.wire.optime import OpTime
from agent.wire.places import Places
from agent.wire.policy_view import section
from agent.wire.profiles import names, storage_of, storage_path
from agent.wire.repositories import Repositories
from agent.wire.schedule_state import ScheduleState
from agent.wire.settings import Settings
from agent.wire.snapshots import of_backup, of_operation
from agent.wire.timelines import Gap, Run
from agent.wire.topology import Topology
from agent.wire.wording import duration, epoch

LETTERS: Final = {
    Role.PRIMARY: "P",
    Role.SECONDARY: "S",
    Role.HIDDEN: "H",
    Role.DELAYED: "D",
    Role.STARTUP: "U",
    Role.DOWN: "X",
}
DEFAULT_PRIORITY: Final = {Role.PRIMARY: 0.5, Role.SECONDARY: 1.0, Role.HIDDEN: 2.0}


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the lead replica set, agent or not."""

    host: str
    is_arbiter: bool


@dataclass(frozen=True)
class Overview:
    """What was read, at `now`."""

    now: OpTime
    replset: str
    """The lead replica set."""
    members: tuple[Member, ...]
    nodes: tuple[NodeStatus, ...]
    settings: Settings
    active: tuple[Operation, ...]
    recent: tuple[Operation, ...]
    backups: tuple[Backup, ...]
    leases: dict[str, Lease]
    runs: tuple[Run, ...] = ()
    gaps: tuple[Gap, ...] = ()
    troubles: Mapping[str, str] = field(default_factory=dict)
    repositories: Repositories = field(default_factory=Repositories)
    cluster_id: str = ""
    topology: Topology = field(default_factory=lambda: Topology(members=()))
    schedule: ScheduleState | None = None

    @cached_property
    def places(self) -> Places:
        """Where backups and slices lie."""
        return Places(self.settings, self.repositories)

    server_time: datetime | None = None
    """Of the primary of the lead replica set."""

    @cached_property
    def covered(self) -> Coverage:
        """What the archived oplog reaches."""
        troubles = self.troubles if self.settings.pitr.enabled else {}
        return Coverage.of(
            self.places,
            self.runs,
            self.gaps,
            self.backups,
            troubles,
            replsets=self.topology.replsets,
        )

    def cluster(self) -> list[dict[str, Any]]:
        """Per replica set its nodes, those without an agent as far as they are known."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for node in self.nodes:
            rows.setdefault(node.replset, []).append(_node(node))
        agents = {node.host for node in self.nodes if node.replset == self.replset}
        for member in self.members:
            if member.host not in agents:
                rows.setdefault(self.replset, []).append(_without_agent(member))
        for shard in self.topology.members:
            served = {node.host for node in self.nodes if node.replset == shard.replset}
            for host in shard.hosts:
                if host not in served:
                    alone = _without_agent(Member(host, is_arbiter=False))
                    rows.setdefault(shard.replset, []).append(alone)
        return [{"rs": name, "nodes": rows[name]} for name in sorted(rows)]

    def pitr(self) -> dict[str, Any]:
        """Whether the oplog is archived, and by whom."""
        sets = sorted({node.replset for node in self.nodes})
        held = [self.leases[slicer_scope(s)] for s in sets if slicer_scope(s) in self.leases]
        return {
            "conf": self.settings.pitr.enabled,
            "run": bool(held),
            "nodes": [lease.owner for lease in held],
            "lag_s": self.covered.lag_s(self.now),
            "error": "; ".join([*self.covered.errors(), *self._barred(sets)]) or None,
            "behind": self.covered.behind(),
            "gaps": self.covered.gaps_found(),
        }

    def _barred(self, replsets: Iterable[str]) -> list[str]:
        """The replica sets in which no agent may archive, by the priorities that were set."""
        if not self.settings.pitr.enabled:
            return []
        chosen = self.settings.pitr.priority
        found = []
        for replset in replsets:
            live = [node for node in self.nodes if node.replset == replset and node.is_live]
            given = [chosen.get(n.host, 1.0) if chosen else n.priority for n in live]
            if given and all(one is not None and one <= 0 for one in given):
                where = "pitr.priority" if chosen else "backup.priority"
                found.append(f"{replset}: {where} is 0 for all its agents, and none archives")
        return found

    def running(self) -> list[dict[str, Any]]:
        """Every operation that is not over."""
        return [_running(operation, self.now) for operation in self.active]

    def duration_s(self, backup: Backup) -> float:
        """How long a backup took, in seconds; from its OpTimes where its operation is forgotten."""
        made = next((op for op in self.recent if op.id == backup.op_id), None)
        if made is not None and made.finished_at is not None:
            return (made.finished_at - made.requested_at).total_seconds()
        return max(0.0, (backup.last_write.wall() - backup.started_at).total_seconds())

    def policy(self) -> dict[str, Any]:
        """What runs next, and what is kept."""
        state = self.schedule or ScheduleState(now=self.now.wall())
        return section(self.settings.policy, state)

    def backups_section(self) -> dict[str, Any]:
        """Where they are, and which: published, running, failed."""
        published = {backup.id for backup in self.backups}
        known = {op.id: op for op in (*self.recent, *self.active) if op.kind is Kind.BACKUP}
        others = [op for op in known.values() if op.name not in published]
        # A backup that is done and not in the catalogue was deleted.
        others = [op for op in others if op.state is not State.DONE]
        places = self.places
        snapshots = [of_backup(b, places.profiles_of(b)) for b in self.backups] + [
            of_operation(op) for op in others
        ]
        storage = self.settings.storage
        return {
            "type": storage.type if storage is not None else None,
            "path": storage_path(self.settings),
            "profiles": [self._profile(name) for name in names(self.settings)],
            "snapshot": sorted(snapshots, key=lambda item: str(item["name"]), reverse=True),
            "pitrChunks": self.covered.chunks(),
        }

    def _profile(self, name: str) -> dict[str, Any]:
        found = self.places.found(name)
        owner = found.cluster_id if found is not None else None
        return {
            "name": name,
            "type": storage_of(self.settings, name).type,
            "path": storage_path(self.settings, name),
            "repository_id": found.repository_id if found is not None else None,
            "owner": owner,
            "foreign": bool(self.cluster_id) and owner not in (None, self.cluster_id),
        }


def priorities(nodes: Iterable[NodeStatus]) -> dict[str, float]:
    """What the election counts for each host, before lag."""
    return {
        node.host: node.priority
        if node.priority is not None
        else DEFAULT_PRIORITY.get(node.role, 0.0)
        for node in nodes
    }


def _node(node: NodeStatus) -> dict[str, Any]:
    errors = list(node.errors)
    if node.storage_error is not None:
        errors.append(f"storage: {node.storage_error}")
    errors += [f"storage {name}: {why}" for name, why in sorted(node.profile_errors.items())]
    if node.key_error is not None:
        errors.append(f"encryption: {node.key_error}")
    if not node.is_live:
        errors.insert(0, f"no heartbeat for {duration(node.age_s)}")
    return {
        "host": node.host,
        "role": LETTERS[node.role],
        "agent": f"v{node.agent_version}",
        "ok": not errors,
        "errors": errors,
        "lag_s": round(node.lag_s, 1),
        "heartbeat_age_s": round(node.age_s, 1),
        "mongodb_version": node.mongodb_version,
        "priority": priorities([node])[node.host],
    }


def _without_agent(member: Member) -> dict[str, Any]:
    errors = [] if member.is_arbiter else ["no agent"]
    return {
        "host": member.host,
        "role": "A" if member.is_arbiter else None,
        "agent": None,
        "ok": member.is_arbiter,
        "errors": errors,
        "lag_s": None,
        "heartbeat_age_s": None,
    }


def _running(operation: Operation, now: OpTime) -> dict[str, Any]:
    amounts = whole_progress(operation.parts)
    begun = [entry.at for entry in operation.history if entry.state == State.RUNNING.value]
    elapsed_s = now.T - (epoch(begun[0]) or 0) if begun else 0
    rate = amounts.bytes_done / elapsed_s if elapsed_s > 0 else None
    left = amounts.bytes_total - amounts.bytes_done
    return {
        "op_id": operation.id,
        "type": operation.kind.value,
        "name": operation.name,
        "status": operation.state.value,
        "queued": operation.queued,
        "startTS": epoch(operation.requested_at),
        "lead": operation.lead_node,
        "progress": {
            **amounts.to_json(),
            "bytes_s": round(rate) if rate is not None else None,
            "eta_s": round(left / rate) if rate and left > 0 else None,
            "replsets": _parts(operation),
        },
    }


def _parts(operation: Operation) -> Sequence[dict[str, Any]]:
    return [
        {
            "rs": part.replset,
            "status": part.state.value,
            "node": part.node,
            **part.progress.to_json(),
        }
        for part in operation.parts
    ]
