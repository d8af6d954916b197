"""`ctl delete-pitr`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from agent.wire.operations import Kind
from agent.wire.removals import pitr_rules
from agent.wire.specs import DeletePitrSpec
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import OlderThan, dry_run_option, global_options, wait_options, yes_or_force_option
from ctl.removal import Holdings, Preview, cutoff, going_slices, read_holdings, remove
from ctl.storage_settings import require_storage

if TYPE_CHECKING:
    from ctl.session import Session


@click.command("delete-pitr")
@click.option("--older-than", type=OlderThan(), help="7d, 2026-01-02 or 2026-01-02T03:04:05 (UTC).")
@click.option("-a", "--all", "all_", is_flag=True, help="All that nothing needs any more.")
@dry_run_option
@yes_or_force_option
@wait_options
@global_options
@pass_invocation
def command(
    invocation: Invocation,
    /,
    *,
    older_than: datetime | timedelta | None,
    all_: bool,
    **flags: Any,
) -> None:
    """Delete archived oplog: what only leads to moments before a time.

    Every later moment stays restorable: slices from its base on stay. With --all and PITR on, the
    newest base and what follows it stay; with PITR off, only what backups and readers need.
    """
    if (older_than is None) == (not all_):
        raise click.UsageError("give either --older-than or --all")

    async def run(session: Session) -> Result:
        await require_storage(session)
        holdings = await read_holdings(session)
        spec = DeletePitrSpec(
            older_than=None if older_than is None else cutoff(holdings.now, older_than)
        )
        preview = choose(holdings, spec)
        question = "Delete these slices?"
        return await remove(session, Kind.DELETE_PITR, spec, preview, question, **flags)

    invocation.perform(run)


def choose(holdings: Holdings, spec: DeletePitrSpec) -> Preview:
    """What the runs lose, and why the rest stays."""
    rules = pitr_rules(spec, holdings.settings, holdings.now, holdings.spans)
    decision = holdings.decide(rules)
    slices = going_slices(holdings.runs, decision.floor)
    return replace(Preview(slices=slices), floor=decision.floor, floor_reason=decision.floor_reason)
