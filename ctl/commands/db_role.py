"""`ctl db-role`: needs no cluster."""

from __future__ import annotations

import json

import click

from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options
from ctl.roles import Document, backup_role, restore_role

ROLES = {"backup": (backup_role,), "restore": (backup_role, restore_role)}


@click.command("db-role")
@click.argument("purpose", type=click.Choice(tuple(ROLES)), default="restore")
@click.option("--user", default="tidelog", show_default=True, help="The user to make.")
@global_options
@pass_invocation
def command(invocation: Invocation, purpose: str, user: str) -> None:
    """Print the least privileges of the agents' user, as roles and as mongosh commands.

    For backup only, or for restore, which includes it. Run the commands on every replica set.
    """
    roles = [build() for build in ROLES[purpose]]
    invocation.output.show(Result({"user": user, "roles": roles}, script(roles, user)))


def script(roles: list[Document], user: str) -> str:
    """What to paste into mongosh."""
    names = [{"role": role["createRole"], "db": "admin"} for role in roles]
    lines = ['db = db.getSiblingDB("admin");']
    for role in roles:
        privileges = ",\n".join(f"  {json.dumps(item)}" for item in role["privileges"])
        head = f"createRole: {json.dumps(role['createRole'])}, roles: {json.dumps(role['roles'])}"
        lines.append(f"db.runCommand({{{head}, privileges: [\n{privileges}\n]}});")
    lines += [
        f"db.createUser({{user: {json.dumps(user)}, pwd: passwordPrompt(),",
        f"  roles: {json.dumps(names)}}});",
    ]
    return "\n".join(lines)
