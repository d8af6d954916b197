"""`ctl cleanup`: backups and slices by age, and what nothing refers to."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from agent.wire.operations import Kind
from agent.wire.removals import older_rules
from agent.wire.schedule_state import Orphans
from agent.wire.specs import CleanupSpec
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import OlderThan, dry_run_option, global_options, wait_options, yes_option
from ctl.removal import (
    Holdings,
    Preview,
    cutoff,
    going_slices,
    of_backups,
    read_holdings,
    remove,
)
from ctl.render import moment, number, size
from ctl.storage_settings import require_storage

if TYPE_CHECKING:
    from ctl.session import Session


@click.command("cleanup")
@click.option("--older-than", type=OlderThan(), help="7d, 2026-01-02 or 2026-01-02T03:04:05 (UTC).")
@dry_run_option
@yes_option
@wait_options
@global_options
@pass_invocation
def command(
    invocation: Invocation, /, *, older_than: datetime | timedelta | None, **flags: Any
) -> None:
    """Delete backups and archived oplog older than a time, and what nothing refers to.

    Every later moment stays restorable. Leftovers of failed backups go after their grace
    (policy.sweepGrace); without --older-than only they go.
    """

    async def run(session: Session) -> Result:
        await require_storage(session)
        holdings = await read_holdings(session)
        state = await session.schedule.read()
        spec = CleanupSpec(
            older_than=None if older_than is None else cutoff(holdings.now, older_than)
        )
        preview = replace(choose(holdings, spec), remark=_remark(state.orphans))
        question = "Delete this, and what nothing refers to?"
        return await remove(session, Kind.CLEANUP, spec, preview, question, always=True, **flags)

    invocation.perform(run)


def choose(holdings: Holdings, spec: CleanupSpec) -> Preview:
    """Backups and slices; leftovers are found by the agents."""
    if spec.older_than is None:
        return Preview()
    decision = holdings.decide(older_rules(spec.older_than, holdings.settings, holdings.now))
    return replace(
        of_backups(holdings, decision, holdings.backups),
        slices=going_slices(holdings.runs, decision.floor),
        floor=decision.floor,
        floor_reason=decision.floor_reason,
    )


def _remark(orphans: dict[str, Orphans]) -> str:
    if not orphans:
        return "The last sweep left nothing that waits for its grace"
    objects = sum(each.objects for each in orphans.values())
    bytes_ = sum(each.size_bytes for each in orphans.values())
    since = min(each.first_seen for each in orphans.values())
    return (
        f"Leftovers that wait for their grace: {number(objects)} objects, {size(bytes_)},"
        f" first seen {moment(since)}"
    )
