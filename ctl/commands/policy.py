"""`ctl policy`: why each backup and slice stays or will go, when, and what runs next."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from agent.wire.policy_view import next_runs
from agent.wire.retention import copy_of, forecast, rules_of
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options
from ctl.policy_view import run_rows
from ctl.removal import Holdings, going_slices, read_holdings
from ctl.render import epoch, moment, table, title

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.wire.schedule_state import ScheduleState
    from ctl.session import Session

HORIZON: Final = timedelta(days=400)
ACTIONS: Final = ("show", "explain")
COLUMNS: Final = ("SCHEDULE", "WHEN", "NEXT", "LAST~")


@click.command("policy")
@click.argument("action", type=click.Choice(ACTIONS), default="show")
@global_options
@pass_invocation
def command(invocation: Invocation, /, *, action: str) -> None:
    """Show the schedules and their next runs; explain why each backup and slice stays or goes.

    'explain' also says when each will go, if backups are taken as scheduled. The policy is set with
    'ctl config' (policy.…).
    """

    async def run(session: Session) -> Result:
        holdings = await read_holdings(session)
        state = await session.schedule.read()
        return show(holdings, state) if action == "show" else explain(holdings, state)

    invocation.perform(run)


def show(holdings: Holdings, state: ScheduleState) -> Result:
    """The rules and what runs next."""
    from rich.console import Group

    from agent.wire.settings import masked
    from ctl.render import as_yaml

    runs = next_runs(holdings.settings.policy, state)
    policy = masked(holdings.settings).get("policy", {})
    data = {"policy": policy, "runs": runs}
    if not policy:
        return Result(
            data, "there is no policy; 'ctl config --set policy.keep.daily=14' begins one"
        )
    parts: list[RenderableType] = [as_yaml({"policy": policy})]
    if runs:
        parts += ["", table(COLUMNS, run_rows(runs))]
    return Result(data, Group(*parts))


def explain(holdings: Holdings, state: ScheduleState) -> Result:
    """Each backup, each run of slices, each schedule."""
    from rich.console import Group

    policy = holdings.settings.policy
    decision = holdings.decide(rules_of(policy, holdings.now))
    copies = [copy_of(backup) for backup in holdings.backups]
    leaves = forecast(copies, holdings.spans, policy, holdings.now, HORIZON)
    backups = [
        {
            "name": verdict.name,
            "stays": verdict.stays,
            "reasons": list(verdict.reasons),
            "goes_about": epoch(_goes_about(verdict.stays, leaves.get(verdict.name), holdings.now)),
        }
        for verdict in decision.verdicts
    ]
    slices = _slices(holdings, decision.floor, decision.floor_reason, policy.pitr_window)
    runs = next_runs(policy, state)
    data = {
        "now": epoch(holdings.now),
        "is_retaining": policy.is_retaining,
        "backups": backups,
        "slices": slices,
        "runs": runs,
    }
    parts: list[RenderableType] = [title("Backups:")]
    columns = ("NAME", "", "UNTIL ABOUT", "WHY~")
    parts.append(table(columns, _backup_rows(backups), indent=2) if backups else "  none")
    parts += ["", title("Archived oplog:")]
    columns_of_slices = ("REPLSET", "FROM", "TO", "", "WHY~")
    parts.append(table(columns_of_slices, _slice_rows(slices), indent=2) if slices else "  none")
    parts += ["", title("Schedules:")]
    parts.append(table(COLUMNS, run_rows(runs), indent=2) if runs else "  none")
    return Result(data, Group(*parts))


def _goes_about(stays: bool, forecast_at: datetime | None, now: datetime) -> datetime | None:
    return forecast_at if stays else now


def _slices(
    holdings: Holdings, floor: Any, reason: str, window_s: float | None
) -> list[dict[str, Any]]:
    """Of each run the stretch that goes and the one that stays."""
    found: list[dict[str, Any]] = [
        {**item, "stays": False, "reason": "nothing that is promised needs it", "goes_about": None}
        for item in going_slices(holdings.runs, floor)
    ]
    for run in holdings.runs:
        start = run.start if floor is None else max(run.start, floor)
        if start >= run.span.end:
            continue
        goes = None
        if window_s is not None:
            goes = epoch(start.wall() + timedelta(seconds=window_s))
        found.append(
            {
                "replset": run.replset,
                "from": start.T,
                "to": run.span.end.T,
                "stays": True,
                "reason": reason,
                "goes_about": goes,
            }
        )
    return sorted(found, key=lambda item: (item["replset"], item["from"]))


def _backup_rows(backups: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    rows = []
    for item in backups:
        until = _at(item["goes_about"]) if item["goes_about"] else f"> {HORIZON.days} days"
        word = "stays" if item["stays"] else "GOES"
        rows.append(
            (item["name"], word, until if item["stays"] else "now", "; ".join(item["reasons"]))
        )
    return rows


def _slice_rows(slices: list[dict[str, Any]]) -> list[tuple[str, str, str, str, str]]:
    return [
        (
            item["replset"],
            _at(item["from"]),
            _at(item["to"]),
            "stays" if item["stays"] else "GOES",
            item["reason"],
        )
        for item in slices
    ]


def _at(seconds: int) -> str:
    from datetime import UTC

    return moment(datetime.fromtimestamp(seconds, UTC))
