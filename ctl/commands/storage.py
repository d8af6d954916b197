"""`ctl storage`: what may be asked of a storage itself, and whose it is."""

from __future__ import annotations

import importlib
from typing import Final

import click

from ctl.options import global_options

VERBS: Final = {
    "adopt": "Make the repository of another cluster this one's.",
    "check": "Ask every agent to try the storage now, permission by permission.",
    "lifecycle": "Print the lifecycle rules that suit the storage.",
    "policy": "Print the least privileges that the storage's credentials need.",
}


class _LazyGroup(click.Group):
    """Imports `ctl.storage.<verb>` on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"ctl.storage.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(VERBS.items()))


@click.group("storage", cls=_LazyGroup)
@global_options
def command() -> None:
    """Check the storage, print what it should allow, take a repository over."""
