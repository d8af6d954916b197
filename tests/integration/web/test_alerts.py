"""The alert rules, evaluated by Prometheus' own tool on what agents expose: each fault is told of
within two scrapes, by the alert made for it, and a good run by none."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agent.wire.operations import Kind, State
from agent.wire.overview import Overview
from agent.wire.timelines import Gap, GapCause
from agent.wire.verdicts import Level, Verdict
from tests.support import alerts
from tests.support.alerts import GOOD_STEPS, STEP_S, Series, series_of
from tests.support.overviews import (
    DAY,
    a_backup,
    a_run,
    a_running_backup,
    an_operation,
    at,
    good,
    optime,
    view_of,
)
from tests.support.product import ROOT

FAULT_SEEN_S = GOOD_STEPS * STEP_S
SECOND_SCRAPE_S = FAULT_SEEN_S + STEP_S


def _nodes(overview: Overview, chosen: Callable[[Any], bool], **changes: Any) -> Overview:
    nodes = [n.model_copy(update=changes) if chosen(n) else n for n in overview.nodes]
    return replace(overview, nodes=tuple(nodes))


def _is_db3(node: Any) -> bool:
    return bool(node.host.startswith("db3."))


def _set(series: Series, name: str, value: float) -> Series:
    """The series of one metric at another value."""
    found = {key: value if key.startswith(f"{name}{{") else one for key, one in series.items()}
    assert found != series, f"nothing called {name} changed"
    return found


def agent_down() -> Series:
    return _set(series_of(view_of(good())), "up", 0.0)


def agent_silent() -> Series:
    return series_of(view_of(_nodes(good(), _is_db3, age_s=40.0)))


def a_set_without_agents() -> Series:
    return series_of(view_of(_nodes(good(), lambda n: n.replset == "shard-a", age_s=40.0)))


def nobody_answers() -> Series:
    return {key: 0.0 for key in series_of(view_of(good())) if key.startswith("up{")}


def nothing_to_restore() -> Series:
    return series_of(view_of(good(backups=(), runs=(), recent=())))


def archiving_late() -> Series:
    return series_of(view_of(good(runs=tuple(a_run(s, 12.1 * DAY, 200) for s in ("config",)))))


def archiving_error() -> Series:
    runs = good().runs
    return series_of(
        view_of(good(runs=(runs[0].model_copy(update={"error": "no answer"}), *runs[1:])))
    )


def nobody_archives() -> Series:
    leases = {k: v for k, v in good().leases.items() if k != "slicer/shard-b"}
    return series_of(view_of(good(leases=leases)))


def base_missing() -> Series:
    runs = tuple(a_run(run.replset, 3000, 8) for run in good().runs)
    return series_of(view_of(good(runs=runs)))


def hole() -> Series:
    gap = Gap(
        replset="shard-b",
        start=optime(300),
        end=optime(200),
        cause=GapCause.OVERRUN,
        at=at(20),
    )
    return series_of(view_of(good(gaps=(gap,))))


def oplog_window_nearly_used() -> Series:
    runs = tuple(a_run(name, 12.1 * DAY, 1.5 * DAY) for name in ("config", "shard-a", "shard-b"))
    return series_of(view_of(good(runs=runs)))


def backup_failed() -> Series:
    failed = an_operation(Kind.BACKUP, 660, state=State.FAILED)
    return series_of(view_of(good(recent=(failed, *good().recent))))


def no_backup_for_too_long() -> Series:
    return series_of(view_of(good(backups=(a_backup(1.2 * DAY),))))


def a_harmed_backup() -> Series:
    first, *rest = good().backups
    harmed = Verdict(level=Level.READ, harmed=2, problems=("gone",))
    return series_of(view_of(good(backups=(first.model_copy(update={"verdict": harmed}), *rest))))


def no_proof() -> Series:
    proof = an_operation(Kind.RESTORE, 40 * DAY, spec={"backup": "x"}, result={"backup": "x"})
    return series_of(view_of(good(recent=(*good().recent[:-1], proof))))


def operation_stuck() -> Series:
    stuck = a_running_backup().model_copy(update={"updated_at": at(2000)})
    return series_of(view_of(good(active=(stuck,))))


def storage_down() -> Series:
    view = view_of(good())
    view.local.storages["main"].failing_since = view.now_s - 12
    return series_of(view)


def credentials_end_soon() -> Series:
    view = view_of(good())
    view.local.storages["main"].credentials_left_s = 6 * DAY
    return series_of(view)


def storage_check_failed() -> Series:
    return series_of(view_of(_nodes(good(), _is_db3, storage_error="the bucket is not there")))


def storage_denied() -> Series:
    view = view_of(good())
    view.local.storages["main"].failures["PermissionDenied"] = 1
    return series_of(view)


def credentials_refused_at_the_check() -> Series:
    view = view_of(good())
    view.local.heartbeat.condition.storage_error = "access denied"
    view.local.heartbeat.condition.storage_error_type = "PermissionDenied"
    return series_of(view)


def node_excluded() -> Series:
    return series_of(view_of(_nodes(good(), _is_db3, lag_s=300.0)))


def control_unreachable() -> Series:
    return _set(series_of(view_of(good())), "tidelog_control_silent_seconds", 20.0)


def lease_trouble() -> Series:
    view = view_of(good())
    events: Any = view.local.events
    events["lease.renewal_failed"] = 2
    return series_of(view)


def clock_off() -> Series:
    return series_of(view_of(good(), clock_offset_s=-9.0))


def key_unusable() -> Series:
    view = view_of(good())
    view.local.heartbeat.condition.key_error = "it is gone"
    return series_of(view)


def webhook_failing() -> Series:
    view = view_of(good())
    events: Any = view.local.events
    events["notify.failed"] = 1
    return series_of(view)


FAULTS: dict[str, list[Callable[[], Series]]] = {
    "TidelogAgentDown": [agent_down, agent_silent],
    "TidelogReplsetWithoutAgents": [a_set_without_agents],
    "TidelogAllAgentsDown": [nobody_answers],
    "TidelogNotRestorable": [nothing_to_restore],
    "TidelogArchivingLate": [archiving_late],
    "TidelogArchivingError": [archiving_error],
    "TidelogNobodyArchives": [nobody_archives],
    "TidelogBaseMissing": [base_missing],
    "TidelogGap": [hole],
    "TidelogOplogWindowLow": [oplog_window_nearly_used],
    "TidelogBackupFailed": [backup_failed],
    "TidelogBackupTooOld": [no_backup_for_too_long],
    "TidelogBackupHarmed": [a_harmed_backup],
    "TidelogProofTooOld": [no_proof],
    "TidelogOperationStuck": [operation_stuck],
    "TidelogStorageFailing": [storage_down],
    "TidelogStorageCredentialsEnd": [credentials_end_soon],
    "TidelogStorageUnusable": [storage_check_failed],
    "TidelogStorageRefuses": [storage_denied, credentials_refused_at_the_check],
    "TidelogNodeExcluded": [node_excluded],
    "TidelogControlUnreachable": [control_unreachable],
    "TidelogLeaseTrouble": [lease_trouble],
    "TidelogClockOff": [clock_off],
    "TidelogKeyUnusable": [key_unusable],
    "TidelogWebhookFailing": [webhook_failing],
}
CASES = [
    pytest.param(name, fault, id=f"{fault.__name__}-{name}")
    for name, faults in FAULTS.items()
    for fault in faults
]


def baseline(name: str) -> Series:
    view = view_of(good())
    events: Any = view.local.events
    events["notify.failed"] = 0
    if name == "TidelogKeyUnusable":
        view.local.heartbeat.condition.key_policies = ("p",)
    if name == "TidelogStorageCredentialsEnd":
        view.local.storages["main"].credentials_left_s = 30 * DAY
    return series_of(view)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, set[str]]]:
    """What fires in each case, just before the fault, and at the second scrape that sees it."""
    cases = {
        fault.__name__: alerts.case(baseline(name), fault())
        for name, faults in FAULTS.items()
        for fault in faults
    }
    cases["good"] = alerts.case(baseline(""), baseline(""))
    moments_s = (FAULT_SEEN_S - STEP_S, SECOND_SCRAPE_S, SECOND_SCRAPE_S + 8 * STEP_S)
    return alerts.firing(cases, moments_s, tmp_path_factory.mktemp("rules"))


@pytest.mark.parametrize(("name", "fault"), CASES)
def test_a_fault_is_told_of_within_two_scrapes(
    name: str, fault: Callable[[], Series], told: dict[str, dict[int, set[str]]]
) -> None:
    found = told[fault.__name__]
    assert found[FAULT_SEEN_S - STEP_S] == set()
    assert name in found[SECOND_SCRAPE_S], found


def test_a_good_run_is_silent(told: dict[str, dict[int, set[str]]]) -> None:
    assert set().union(*told["good"].values()) == set()


def test_every_alert_has_a_fault() -> None:
    assert set(FAULTS) == alerts.alert_names()


def test_promtool_finds_nothing_wrong_with_the_files() -> None:
    done = subprocess.run(
        [alerts.promtool(), "check", "rules", alerts.RULES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    configuration = alerts.RULES.with_name("prometheus.yml")
    done = subprocess.run(
        [alerts.promtool(), "check", "config", "--syntax-only", configuration],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_explained() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(Tidelog\w+)` \|", text, re.MULTILINE)) == alerts.alert_names()
