"""Every metric by name: what it counts, in which unit, with which labels.

One table, so that a scrape, docs/monitoring.md and the tests cannot differ. Each agent tells of
itself and of its own replica set; what concerns other replica sets and their nodes is told by the
agents of the lead replica set alone, so that the number of series grows with the number of nodes
and not with its square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Metric:
    """`labels` beside `cluster`, which all have."""

    help: str
    labels: tuple[str, ...] = ()
    is_counter: bool = False


_REPLSET: Final = ("replset",)
_NODE: Final = ("replset", "host")
_STORAGE: Final = ("storage",)
_VERB: Final = ("storage", "verb")
_KIND: Final = ("kind",)
_PART: Final = ("kind", "replset")


def _counter(help: str, labels: tuple[str, ...]) -> Metric:
    return Metric(help, labels, is_counter=True)


CLUSTER: Final = {
    "restorable_until_timestamp_seconds": Metric(
        "Latest moment that can be restored to; 0 when there is none."
    ),
    "rpo_seconds": Metric(
        "What a disaster now would lose at most; +Inf when nothing can be restored."
    ),
    "rpo_limit_seconds": Metric(
        "From which rpo_seconds on archiving counts as late; +Inf while PITR is off."
    ),
    "safety_level": Metric("The page's verdict: 0 safe, 1 at risk, 2 not safe."),
    "findings": Metric("How many things the page finds wrong, by level.", ("level",)),
    "pitr_enabled": Metric("1 if the settings want the oplog archived."),
    "pitr_base_missing": Metric(
        "1 if what is archived now has no backup that it could be replayed onto."
    ),
    "backup_last_success_timestamp_seconds": Metric(
        "The moment that the newest full backup restores to; 0 when there is none."
    ),
    "backup_last_proved_timestamp_seconds": Metric(
        "When a backup was last proven by a restore or a verification; 0 if not lately."
    ),
    "backup_last_size_bytes": Metric("Stored size of the newest full backup."),
    "backup_last_duration_seconds": Metric("How long the newest full backup took."),
    "backup_max_age_seconds": Metric("How old the newest full backup may get (notify.maxAge)."),
    "backups": Metric("Backups in the catalogue."),
    "backups_harmed": Metric("Backups that the last look at them found harmed (ctl verify)."),
    "operation_last_success_timestamp_seconds": Metric(
        "When an operation of the kind last ended well; 0 if none of the latest did.", _KIND
    ),
    "operation_last_failure_timestamp_seconds": Metric(
        "When an operation of the kind last failed; 0 if none of the latest did.", _KIND
    ),
    "operations_active": Metric("Operations that are not over.", _KIND),
    "operation_silent_seconds": Metric(
        "How long ago the operation that runs last said how far it is.", _KIND
    ),
    "operation_done_bytes": Metric("Done by the operation that runs, as BSON.", _PART),
    "operation_expected_bytes": Metric("All that it has to do, estimated, as BSON.", _PART),
    "settings_have_storage": Metric("1 if a storage is configured."),
}
"""Of the whole cluster; told alike by every agent."""

REPLSET: Final = {
    "pitr_covered_until_timestamp_seconds": Metric(
        "Up to when the oplog of the replica set is archived.", _REPLSET
    ),
    "pitr_slicer_held": Metric("1 if an agent archives the oplog of the replica set.", _REPLSET),
    "pitr_error": Metric("1 if archiving says why it does not get on.", _REPLSET),
    "pitr_slices_bytes": Metric("Stored size of the archived oplog.", _REPLSET),
    "pitr_gaps": Metric("Holes on record, by cause.", ("replset", "cause")),
    "pitr_gap_seconds": Metric("How long the holes are together, by cause.", ("replset", "cause")),
    "pitr_gap_last_timestamp_seconds": Metric(
        "When the last hole that nobody chose was recorded; 0 if there is none.", _REPLSET
    ),
    "replset_agents": Metric("Agents that registered and did not say goodbye.", _REPLSET),
    "replset_agents_live": Metric("Those of them that are heard of.", _REPLSET),
    "lease_owners_total": _counter(
        "Owners that a held lease has had: each change of hands adds one.", ("scope",)
    ),
    "node_live": Metric("1 if the agent of the node is heard of.", _NODE),
    "node_excluded": Metric("1 if the node is down, starting or too far behind.", _NODE),
    "node_lag_seconds": Metric("How far the node is behind its primary.", _NODE),
    "node_storage_usable": Metric("1 if the last storage check of the node went well.", _NODE),
}
"""Of one replica set or node; of others than its own only an agent of the lead set tells."""

AGENT: Final = {
    "agent_info": Metric(
        "1; its labels say which agent this is.", (*_NODE, "version", "mongodb_version", "role")
    ),
    "control_silent_seconds": Metric("How long ago the control database last answered."),
    "overview_age_seconds": Metric("How old what this answer says of the cluster is."),
    "clock_offset_seconds": Metric(
        "How far this host's clock is ahead of the primary's; no decision depends on it."
    ),
    "oplog_window_seconds": Metric("How much time the oplog of this node spans."),
    "oplog_window_used_ratio": Metric(
        "Which share of it archiving is behind; at 1 there will be a hole."
    ),
    "storage_check_failed": Metric(
        "1 while this agent's last storage check failed; `error` says how.", ("error",)
    ),
    "storage_requests_total": _counter("Calls to the storage.", _VERB),
    "storage_errors_total": _counter("Calls that ended in an error, answers included.", _VERB),
    "storage_retries_total": _counter("Attempts that failed and were made again.", _VERB),
    "storage_bytes_total": _counter("Bytes stored by `put` and delivered by `get`.", _VERB),
    "storage_request_seconds_total": _counter("Time spent in calls to the storage.", _VERB),
    "storage_throttled_total": _counter("How often it asked for fewer requests.", _STORAGE),
    "storage_failures_total": _counter(
        "Calls that it did not carry out, by kind of error.", ("storage", "error")
    ),
    "storage_failing_seconds": Metric(
        "Since when no attempt has succeeded after one that failed; 0 when all is well.", _STORAGE
    ),
    "storage_credentials_left_seconds": Metric(
        "For how long its credentials are good; absent where they do not end by themselves.",
        _STORAGE,
    ),
    "key_usable": Metric("1 if the encryption keys open what they should; absent without keys."),
    "log_events_total": _counter("Events logged, by name (docs/operations.md).", ("event",)),
    "log_events_dropped_total": _counter("Events that found no room on their way to ctl logs.", ()),
}
"""Of the agent that is asked."""

METRICS: Final = {**CLUSTER, **REPLSET, **AGENT}
PREFIX: Final = "tidelog_"
