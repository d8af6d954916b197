"""The parser tree. Nothing heavy is imported here: `ctl --help` and the completion of command names
need no driver, no models and no tables. A command's module is imported when the command is used.
"""

from __future__ import annotations

import importlib
from typing import Final

import click
from click.shell_completion import CompletionItem

from ctl.options import global_options

COMMANDS: Final = {
    "backup": "Take a backup.",
    "cancel": "Cancel an operation that is in progress.",
    "cancel-backup": "Cancel the backup that is running.",
    "cleanup": "Delete what is old, and what nothing refers to.",
    "completion": "Print the completion script for a shell.",
    "config": "Show or change the settings of the cluster.",
    "db-role": "Print the least-privilege role for the agents' user.",
    "decrypt": "Decrypt copies of a repository's objects.",
    "delete-backup": "Delete one backup, or those older than a time.",
    "delete-pitr": "Delete archived oplog older than a time.",
    "describe-backup": "Show everything known of a backup.",
    "describe-restore": "Show everything known of a restore.",
    "diagnostic": "Write a report for whoever helps, without secrets.",
    "encryption": "Encrypt backups, and look after the keys.",
    "export": "Write a backup as a mongodump directory.",
    "genkey": "Print a new random key.",
    "limit": "How fast backups and restores may go, also those that run.",
    "hold": "Keep a backup from being deleted, or release it.",
    "list": "List backups or restores.",
    "logs": "Show what the agents did.",
    "oplog-replay": "Apply archived oplog to the data as it is.",
    "profile": "Manage storages beside the main one.",
    "policy": "Show schedules, and why backups stay or go.",
    "restore": "Restore a backup.",
    "status": "Show the cluster, what runs, and the backups.",
    "storage": "Check the storage, print its policies, take it over.",
    "verify": "Look whether what is stored is there and what was written.",
    "version": "Print the version.",
}


class LazyGroup(click.Group):
    """Knows its commands by name and one line; imports `ctl.commands.<name>` on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ctl.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [
            CompletionItem(name, help=text)
            for name, text in sorted(COMMANDS.items())
            if name.startswith(incomplete)
        ]
        # `Group.shell_complete` would import every command for its help.
        return names + click.Command.shell_complete(self, ctx, incomplete)


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from agent.version import VERSION

        click.echo(VERSION)
        ctx.exit()


@click.group(
    name="ctl",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version)
@global_options
def app() -> None:
    """Backups of MongoDB: take them, restore them, see them.

    Any member of any replica set of the cluster will do as --mongodb-uri.
    """
