"""A view as Prometheus reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from agent.coordination.heartbeat import Condition
from agent.version import VERSION
from agent.web.catalogue import METRICS, PREFIX
from agent.web.model import View
from agent.wire.backups import Backup
from agent.wire.leases import slicer_scope
from agent.wire.nodes import NodeStatus
from agent.wire.operations import Kind, Operation, State
from agent.wire.overview import Overview
from agent.wire.safety import (
    Level,
    Safety,
    is_excluded,
    late_after_s,
    proofs,
    replsets,
    unintended,
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
WATCHED: Final = frozenset(
    {"lease.renewal_failed", "node.lease_lost", "notify.failed", "notify.given_up"}
)
"""Events that alerts count: told while they are 0, so that a first one is seen to rise."""
KINDS: Final = tuple(kind for kind in Kind if kind is not Kind.UNKNOWN)
Sample = tuple[str, float, tuple[str, ...]]
"""Name without prefix, value, label values in the order of the catalogue."""


def exposition(view: View) -> bytes:
    """The answer to a scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(lambda: samples(view), view.local.cluster_id))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, read: Callable[[], Iterable[Sample]], cluster: str) -> None:
        self._read = read
        self._cluster = cluster

    def collect(self) -> Iterator[Family]:
        families: dict[str, Family] = {}
        for name, value, labels in self._read():
            metric = METRICS[name]
            family = families.get(name)
            if family is None:
                kind = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
                family = kind(PREFIX + name, metric.help, labels=("cluster", *metric.labels))
                families[name] = family
            family.add_metric((self._cluster, *labels), value)  # type: ignore[attr-defined]
        yield from families.values()


def samples(view: View) -> Iterator[Sample]:
    """Every value of a scrape."""
    yield from _of_agent(view)
    yield from _of_storages(view)
    overview, safety = view.overview, view.safety
    if overview is None or safety is None:
        return
    yield from _of_safety(overview, safety)
    yield from _of_backups(overview, safety.last_backup)
    yield from _of_operations(overview)
    tells_all = view.local.replset == view.local.lead_replset
    for replset in replsets(overview) if tells_all else [view.local.replset]:
        yield from _of_replset(overview, replset)
        for node in overview.nodes:
            if node.replset == replset:
                yield from _of_node(node)
    yield from _of_leases(overview, None if tells_all else view.local.replset)


def _of_agent(view: View) -> Iterator[Sample]:
    local = view.local
    status = local.heartbeat.latest
    told = (status.mongodb_version, str(status.role)) if status is not None else ("", "")
    yield "agent_info", 1.0, (local.replset, local.host, VERSION, *told)
    yield "control_silent_seconds", local.heartbeat.silent_s, ()
    if view.overview is not None:
        yield "overview_age_seconds", view.age_s, ()
    if view.clock_offset_s is not None:
        yield "clock_offset_seconds", view.clock_offset_s, ()
    yield from _of_oplog(view)
    condition: Condition = local.heartbeat.condition
    if condition.storage_error is not None:
        yield "storage_check_failed", 1.0, (condition.storage_error_type or "TidelogError",)
    if condition.key_usable is not None:
        yield "key_usable", float(condition.key_usable), ()
    for event, count in local.events.items():
        if count or event in WATCHED:
            yield "log_events_total", float(count), (event,)
    yield "log_events_dropped_total", float(local.dropped_events()), ()


def _of_oplog(view: View) -> Iterator[Sample]:
    if view.oplog is None:
        return
    oldest, newest = view.oplog
    window_s = newest.T - oldest.T
    yield "oplog_window_seconds", float(window_s), ()
    runs = view.overview.runs if view.overview is not None else ()
    ends = [run.span.end for run in runs if run.replset == view.local.replset and not run.sealed]
    if ends and view.overview is not None and view.overview.settings.pitr.enabled:
        behind_s = newest.T - max(ends).T
        # A minute is the usual lag, and the oplog of a young replica set is no longer than that.
        used = 0.0 if behind_s < 60 else behind_s / max(1, window_s)
        yield "oplog_window_used_ratio", used, ()


def _of_storages(view: View) -> Iterator[Sample]:
    for storage, counters in view.local.storages.items():
        for verb, counts in counters.verbs.items():
            labels = (storage, verb)
            yield "storage_requests_total", float(counts.calls), labels
            yield "storage_errors_total", float(counts.errors), labels
            yield "storage_retries_total", float(counts.retries), labels
            yield "storage_bytes_total", float(counts.bytes), labels
            yield "storage_request_seconds_total", counts.seconds, labels
        yield "storage_throttled_total", float(counters.throttled), (storage,)
        for error in ("PermissionDenied", "StorageFull", "StorageUnavailable"):
            counters.failures.setdefault(error, 0)  # so that a first one is seen to rise
        for error, count in counters.failures.items():
            yield "storage_failures_total", float(count), (storage, error)
        since = counters.failing_since
        yield "storage_failing_seconds", 0.0 if since is None else view.now_s - since, (storage,)
        if counters.credentials_left_s is not None:
            yield "storage_credentials_left_seconds", counters.credentials_left_s, (storage,)


def _of_safety(overview: Overview, safety: Safety) -> Iterator[Sample]:
    until, pitr = safety.restorable_until, overview.settings.pitr
    yield "restorable_until_timestamp_seconds", float(until.T if until is not None else 0), ()
    yield "rpo_seconds", safety.rpo_s, ()
    limit = late_after_s(overview) if pitr.enabled else float("inf")
    yield "rpo_limit_seconds", limit, ()
    yield "safety_level", float(safety.level), ()
    for level in (Level.RISK, Level.UNSAFE):
        count = sum(finding.level is level for finding in safety.findings)
        yield "findings", float(count), (level.name.lower(),)
    yield "pitr_enabled", float(pitr.enabled), ()
    yield "pitr_base_missing", float(pitr.enabled and overview.covered.needs_base), ()
    yield "settings_have_storage", float(overview.settings.storage is not None), ()


def _of_backups(overview: Overview, newest: Backup | None) -> Iterator[Sample]:
    at = float(newest.last_write.T) if newest is not None else 0.0
    yield "backup_last_success_timestamp_seconds", at, ()
    proved = max((at.timestamp() for at in proofs(overview).values()), default=0.0)
    yield "backup_last_proved_timestamp_seconds", proved, ()
    yield "backup_max_age_seconds", overview.settings.notify.max_age, ()
    yield "backups", float(len(overview.backups)), ()
    harmed = [b for b in overview.backups if b.verdict is not None and not b.verdict.is_sound]
    yield "backups_harmed", float(len(harmed)), ()
    if newest is not None:
        yield "backup_last_size_bytes", float(newest.size_bytes), ()
        yield "backup_last_duration_seconds", overview.duration_s(newest), ()


def _of_operations(overview: Overview) -> Iterator[Sample]:
    for kind in KINDS:
        ended = {State.DONE: 0.0, State.FAILED: 0.0}
        for operation in overview.recent:
            if operation.kind is kind and operation.state in ended and operation.finished_at:
                at = operation.finished_at.timestamp()
                ended[operation.state] = max(ended[operation.state], at)
        active = [operation for operation in overview.active if operation.kind is kind]
        yield "operation_last_success_timestamp_seconds", ended[State.DONE], (kind.value,)
        yield "operation_last_failure_timestamp_seconds", ended[State.FAILED], (kind.value,)
        yield "operations_active", float(len(active)), (kind.value,)
        running = next((operation for operation in active if not operation.queued), None)
        if running is not None:
            yield from _of_running(overview, running)


def _of_running(overview: Overview, operation: Operation) -> Iterator[Sample]:
    kind = operation.kind.value
    heard_at = (operation.updated_at or operation.requested_at).timestamp()
    yield "operation_silent_seconds", max(0.0, overview.now.T - heard_at), (kind,)
    for part in operation.parts:
        labels = (kind, part.replset)
        yield "operation_done_bytes", float(part.progress.bytes_done), labels
        yield "operation_expected_bytes", float(part.progress.bytes_total), labels


def _of_replset(overview: Overview, replset: str) -> Iterator[Sample]:
    runs = [run for run in overview.runs if run.replset == replset]
    if runs:
        latest = runs[-1]
        covered_until = float(max(run.span.end for run in runs).T)
        yield "pitr_covered_until_timestamp_seconds", covered_until, (replset,)
        yield "pitr_error", float(latest.error is not None), (replset,)
        yield "pitr_slices_bytes", float(sum(run.size_bytes for run in runs)), (replset,)
    yield "pitr_slicer_held", float(slicer_scope(replset) in overview.leases), (replset,)
    gaps = [gap for gap in overview.gaps if gap.replset == replset]
    for cause, count in Counter(gap.cause for gap in gaps).items():
        long_s = sum(max(0, gap.end.T - gap.start.T) for gap in gaps if gap.cause is cause)
        yield "pitr_gaps", float(count), (replset, cause.value)
        yield "pitr_gap_seconds", float(long_s), (replset, cause.value)
    news = [gap.at.timestamp() for gap in unintended(tuple(gaps)) if gap.at is not None]
    yield "pitr_gap_last_timestamp_seconds", max(news, default=0.0), (replset,)
    nodes = [node for node in overview.nodes if node.replset == replset]
    yield "replset_agents", float(len(nodes)), (replset,)
    yield "replset_agents_live", float(sum(node.is_live for node in nodes)), (replset,)


def _of_node(node: NodeStatus) -> Iterator[Sample]:
    labels = (node.replset, node.host)
    yield "node_live", float(node.is_live), labels
    yield "node_excluded", float(is_excluded(node)), labels
    yield "node_lag_seconds", node.lag_s, labels
    yield "node_storage_usable", float(node.storage_error is None), labels


def _of_leases(overview: Overview, replset: str | None) -> Iterator[Sample]:
    for scope, lease in overview.leases.items():
        kind, _, rest = scope.partition("/")
        if kind != "node" and (replset is None or kind == "lead" or rest == replset):
            yield "lease_owners_total", float(lease.epoch), (scope,)
