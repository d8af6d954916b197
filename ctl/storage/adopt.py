"""`ctl storage adopt`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agent.errors import Refused
from agent.wire.operations import Kind
from agent.wire.profiles import MAIN, storage_of
from agent.wire.specs import AdoptSpec
from ctl.follow import headline
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import dry_run_option, global_options, wait_options, yes_option
from ctl.places import read_places
from ctl.submission import brief, carry_out, submit

if TYPE_CHECKING:
    from ctl.session import Session


@click.command("adopt")
@click.option("--profile", default=MAIN, metavar="P", help="Storage profile.  [default: main]")
@dry_run_option
@yes_option
@wait_options
@global_options
@pass_invocation
def command(
    invocation: Invocation,
    /,
    *,
    profile: str,
    dry_run: bool,
    yes: bool,
    wait: bool,
    wait_time: float | None,
) -> None:
    """Make the repository of another cluster this one's own.

    A cluster reads any repository and writes to its own only. After an adoption the former owner
    is refused: its backups and its archiving of the oplog fail until it has a place of its own.
    """

    async def run(session: Session) -> Result:
        places = await read_places(session)
        storage_of(places.settings, profile)
        found = places.found(profile)
        if found is None:
            raise Refused(
                f"no agent has looked at the storage of {profile} yet, so its owner is not known",
                hint="see 'ctl status' for the agents, and try again in a moment",
            )
        here = await session.control.read_cluster_id()
        facts = {
            "profile": profile,
            "storage_path": found.address,
            "repository_id": found.repository_id,
            "former_owner": found.cluster_id,
            "owner": here,
        }
        if found.repository_id is None:
            words = f"nothing was written to {found.address} yet: it becomes this cluster's with"
            return Result({**facts, "status": "not needed"}, f"{words} its first backup")
        if found.cluster_id == here:
            words = f"the repository at {found.address} is this cluster's already"
            return Result({**facts, "status": "not needed"}, words)
        view = (
            f"The repository {found.repository_id} at {found.address}\n"
            f"  belongs to cluster {found.cluster_id}\n"
            f"  and will belong to {here}, which is this one.\n"
            "From then on the former owner is refused: its backups fail, and its oplog is not\n"
            "archived there any more. What is stored stays; both clusters may restore from it."
        )
        if dry_run:
            return Result({**facts, "dry_run": True}, view)
        if not session.output.confirm(view, "Adopt it?", yes=yes):
            return Result({**facts, "status": "declined"}, "nothing was changed")
        spec = AdoptSpec(profile=profile, owner=found.cluster_id)
        operation = await submit(session, Kind.ADOPT, spec)
        done = await carry_out(session, operation, wait=wait, wait_time_s=wait_time)
        word = "done" if done.state.is_terminal else "requested"
        return Result({**facts, **brief(done)}, f"{headline(done)} {word} [op id: {done.id}]")

    invocation.perform(run)
