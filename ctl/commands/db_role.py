"""`ctl db-role`: needs no cluster."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options
from ctl.roles import FOR_BACKUP, FOR_RESTORE, Role

ROLES = {"backup": (FOR_BACKUP,), "restore": (FOR_BACKUP, FOR_RESTORE)}


@click.command("db-role")
@click.argument("purpose", type=click.Choice(tuple(ROLES)), default="restore")
@click.option("--user", default="tidelog", show_default=True, help="The user to make.")
@click.option("--x509", is_flag=True, help="The user is the subject of a client certificate.")
@global_options
@pass_invocation
def command(invocation: Invocation, purpose: str, user: str, x509: bool) -> None:
    """Print the least privileges of the agents' user, as roles and as mongosh commands.

    For backup only, or for restore, which includes it. Run the commands on every replica set.
    """
    roles = ROLES[purpose]
    commands = [role.command() for role in roles]
    text = script(roles, user, is_certificate=x509)
    invocation.output.show(Result({"user": user, "roles": commands}, text))


def script(roles: Sequence[Role], user: str, *, is_certificate: bool = False) -> str:
    """What to paste into mongosh."""
    lines = ['db = db.getSiblingDB("admin");']
    for role in roles:
        lines.append(
            f"db.runCommand({{createRole: {json.dumps(role.name)}, roles: [], privileges: ["
        )
        for privilege in role.privileges:
            lines += [f"  // {privilege.reason}", f"  {json.dumps(privilege.document())},"]
        lines.append("]});")
    granted = json.dumps([{"role": role.name, "db": "admin"} for role in roles])
    if is_certificate:
        lines.append('db = db.getSiblingDB("$external");')
    password = "" if is_certificate else " pwd: passwordPrompt(),"
    lines += [
        f"db.createUser({{user: {json.dumps(user, ensure_ascii=False)},{password}",
        f"  roles: {granted}}});",
    ]
    return "\n".join(lines)
