"""`ctl status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from agent.wire.overview import Overview
from ctl.coverage import status_lines
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options
from ctl.policy_view import lines as policy_lines
from ctl.render import duration, moment, number, size, title
from ctl.snapshots import snapshot_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ctl.session import Session

SECTIONS: Final = ("cluster", "pitr", "running", "policy", "backups")
WATCH_EVERY_S: Final = 2.0


@click.command("status")
@click.option(
    "-s", "--sections", type=click.Choice(SECTIONS), multiple=True, help="Only these; repeat."
)
@click.option("-p", "--priority", is_flag=True, help="The priority of each node, too.")
@click.option("--watch", is_flag=True, help="Again every two seconds, until interrupted.")
@global_options
@pass_invocation
def command(invocation: Invocation, sections: tuple[str, ...], priority: bool, watch: bool) -> None:
    """Show the cluster and its agents, what runs, and the backups."""
    chosen = sections or SECTIONS

    async def run(session: Session) -> Result | None:
        invocation.is_endless = watch
        while watch:
            session.output.frame(build(await read(session), chosen, priority))
            await session.clock.sleep(WATCH_EVERY_S)
        return build(await read(session), chosen, priority)

    invocation.perform(run)


async def read(session: Session) -> Overview:
    """All that is shown."""
    from agent.store.overview_reading import read_overview

    return await read_overview(session)


def build(overview: Overview, sections: Sequence[str], priority: bool) -> Result:
    """The chosen sections in both forms."""
    found: dict[str, Any] = {
        "cluster": overview.cluster,
        "pitr": overview.pitr,
        "running": overview.running,
        "policy": overview.policy,
        "backups": overview.backups_section,
    }
    data = {name: found[name]() for name in SECTIONS if name in sections}
    parts: list[RenderableType] = []
    if "cluster" in data:
        parts += ["", title("Cluster:"), *_cluster(data["cluster"], priority)]
    if "pitr" in data:
        parts += ["", title("PITR:"), *_pitr(data["pitr"], overview)]
    if "running" in data:
        parts += ["", title("Currently running:"), *_running(data["running"])]
    if "policy" in data:
        parts += ["", title("Policy:"), *policy_lines(data["policy"])]
    if "backups" in data:
        parts += ["", title("Backups:"), *_backups(data["backups"], overview)]
    return Result(data, Group(*parts[1:]))


def _cluster(sets: list[dict[str, Any]], priority: bool) -> list[RenderableType]:
    lines: list[RenderableType] = [] if sets else ["  no agent is running"]
    for replset in sets:
        lines.append(f"{replset['rs']}:")
        for node in replset["nodes"]:
            role = f" [{node['role']}]" if node["role"] else ""
            words = f"  - {node['host']}{role}: "
            if node["agent"] is None:
                words += "arbiter, needs no agent" if node["ok"] else "NO AGENT"
            else:
                words += f"tidelog-agent [{node['agent']}] {'OK' if node['ok'] else 'FAILED'}"
                words += f", lag {duration(node['lag_s'])}" if node["lag_s"] else ""
                words += f", priority {node['priority']:g}" if priority else ""
            lines.append(words)
            told = node["errors"] if node["agent"] else []
            # Folded below itself, not at the margin.
            lines += [Padding(Text(f"> {error}"), (0, 0, 0, 6), expand=False) for error in told]
    return lines


def _pitr(pitr: dict[str, Any], overview: Overview) -> list[RenderableType]:
    lines: list[RenderableType] = [f"  Status [{'ON' if pitr['conf'] else 'OFF'}]"]
    if pitr["nodes"]:
        lines.append(f"  Running on: {', '.join(pitr['nodes'])}")
    return [*lines, *status_lines(overview.covered, overview.now)]


def _running(operations: list[dict[str, Any]]) -> list[RenderableType]:
    lines: list[RenderableType] = [] if operations else ["  (none)"]
    for item in operations:
        progress = item["progress"]
        words = f"  {item['type']} {item['name']}: {item['status']}"
        words += ", queued" if item["queued"] else ""
        if progress["bytes_total"]:
            words += f", {size(progress['bytes_done'])} of {size(progress['bytes_total'])}"
            words += f", {number(progress['documents_done'])} documents"
        if progress["eta_s"] is not None:
            words += f", {size(progress['bytes_s'])}/s, ETA {duration(progress['eta_s'])}"
        # Not folded: an op id is to be copied.
        lines.append(Text(f"{words} [op id: {item['op_id']}]", no_wrap=True, overflow="ignore"))
        lines += [
            f"    {part['rs']}: {part['status']} on {part['node'] or '-'}"
            + (f", {part['stage']}" if part["stage"] else "")
            for part in progress["replsets"]
        ]
    return lines


def _backups(section: dict[str, Any], overview: Overview) -> list[RenderableType]:
    if section["type"] is None:
        return ["  no storage is configured; 'ctl config --file FILE' does it"]
    lines: list[RenderableType] = [f"  {section['type']} {section['path']}"]
    lines += [f"  {p['name']}: {p['type']} {p['path']}" for p in section["profiles"][1:]]
    lines += [
        f"  The repository of {p['name']} belongs to another cluster ({p['owner']}): this one may"
        " restore from it; 'ctl storage adopt' takes it over"
        for p in section["profiles"]
        if p["foreign"]
    ]
    if not section["snapshot"]:
        return [*lines, "  none"]
    within = [b for b in overview.backups if overview.places.is_within_reach(b)]
    newest = max(within, key=lambda b: b.last_write, default=None)
    lines.append(snapshot_table(section["snapshot"], overview.backups))
    if newest is not None:
        lines.append(f"  Newest restorable time: {moment(newest.last_write.wall())}")
    return lines
