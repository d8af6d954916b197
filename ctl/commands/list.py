"""`ctl list`: what can be restored, and what was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent.wire.coverage import Coverage
from agent.wire.operations import Kind, Operation
from agent.wire.optime import OpTime
from agent.wire.places import Places
from agent.wire.policy_view import next_runs
from agent.wire.profiles import storage_of
from ctl.coverage import lines, rpo_lines
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.lookup import find_restores
from ctl.options import global_options, remapping_option
from ctl.places import read_places
from ctl.policy_view import run_rows
from ctl.render import epoch, moment, state, table, title
from ctl.snapshots import of_backup, shortened, snapshot_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.wire.backups import Backup
    from ctl.session import Session


@click.command("list")
@click.option("--restore", is_flag=True, help="Restores instead of backups.")
@click.option("--unbacked", is_flag=True, help="Also oplog ranges without a base backup.")
@click.option("-f", "--full", is_flag=True, help="Replica sets of each backup, too.")
@click.option("--size", type=click.IntRange(0), default=0, metavar="N", help="Only the newest N.")
@click.option("--profile", metavar="P", help="Only those on this storage profile.")
@remapping_option
@global_options
@pass_invocation
def command(
    invocation: Invocation,
    /,
    *,
    restore: bool,
    unbacked: bool,
    full: bool,
    size: int,
    profile: str | None,
    replset_remapping: dict[str, str] | None,
) -> None:
    """List the backups that can be restored, or the restores that were made."""

    async def run(session: Session) -> Result:
        if restore:
            return _restores(await find_restores(session), size)
        places = await read_places(session)
        if profile is not None:
            storage_of(places.settings, profile)
        backups = await session.catalog.backups()
        chosen = [b for b in backups if profile is None or profile in places.profiles_of(b)]
        chosen = sorted(chosen, key=lambda b: b.last_write)[-size:]
        covered = Coverage.of(
            places,
            await session.runs.runs(),
            await session.runs.gaps(),
            backups,
            await session.runs.troubles(),
            replsets=(await session.topology()).replsets,
        )
        now = await session.control.now()
        result = _backups(chosen, places, covered, now, full=full, unbacked=unbacked)
        if places.settings.policy.backups:
            coming = next_runs(places.settings.policy, await session.schedule.read())
            result = _with_runs(result, coming)
        return result

    invocation.perform(run)


def _backups(
    backups: list[Backup],
    places: Places,
    covered: Coverage,
    now: OpTime,
    *,
    full: bool,
    unbacked: bool,
) -> Result:
    from rich.console import Group

    is_pitr_on = places.settings.pitr.enabled
    snapshots = [of_backup(backup, places.profiles_of(backup)) for backup in backups]
    if full:
        for snapshot, backup in zip(snapshots, backups, strict=True):
            snapshot["replsets"] = [part.replset for part in backup.replsets]
    pitr: dict[str, Any] = {
        "on": is_pitr_on,
        "ranges": covered.ranges(unbacked=unbacked),
        "gaps": covered.gaps_found(),
        "lag_s": covered.lag_s(now),
        "error": "; ".join(covered.errors()) or None,
    }
    parts: list[RenderableType] = [title("Backup snapshots:")]
    parts.append(snapshot_table(snapshots, backups) if backups else "  none")
    if full:
        parts += [f"  {b.id}: {', '.join(p.replset for p in b.replsets)}" for b in backups]
    parts += ["", f"PITR <{'on' if is_pitr_on else 'off'}>", *lines(covered, unbacked=unbacked)]
    parts += rpo_lines(covered, now) if is_pitr_on else []
    return Result({"snapshots": snapshots, "pitr": pitr}, Group(*parts))


def _with_runs(result: Result, coming: list[dict[str, Any]]) -> Result:
    from rich.console import Group

    words = [f"  {name}: {when}" for name, _, when, _ in run_rows(coming)]
    return Result(
        {**result.data, "next_runs": coming},
        Group(result.text or "", "", title("Next runs:"), *words),
    )


def _restores(restores: list[Operation], size: int) -> Result:
    restores = restores[-size:]
    rows = []
    for item in restores:
        words = item.state.value
        if item.error is not None:
            words += f": {shortened(item.error.message)}"
        backup = str(item.spec.get("backup", "-"))
        rows.append((item.name, moment(item.requested_at), backup, _target(item), state(words)))
    columns = ("NAME", "REQUESTED", "BACKUP", "TO", "STATUS~")
    text: RenderableType = table(columns, rows) if rows else "no restores"
    return Result([_restore(item) for item in restores], text)


def _restore(operation: Operation) -> dict[str, Any]:
    target = operation.spec.get("time")
    return {
        "name": operation.name,
        "op_id": operation.id,
        "status": operation.state.value,
        "type": "pitr" if target else Kind.RESTORE.value,
        "snapshot": operation.spec.get("backup"),
        "start": epoch(operation.requested_at),
        "finish": epoch(operation.finished_at),
        "pit": target,
        "error": operation.error.message if operation.error is not None else None,
    }


def _target(operation: Operation) -> str:
    target = operation.spec.get("time") or operation.result.get("restored_to")
    return f"{target['T']},{target['I']}" if target else "-"
