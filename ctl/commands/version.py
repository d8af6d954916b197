"""`ctl version`: of this program; `ctl status` shows those of the agents."""

from __future__ import annotations

import platform

import click

from agent.version import VERSION
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options


@click.command("version")
@click.option("-s", "--short", is_flag=True, help="Only the number.")
@global_options
@pass_invocation
def command(invocation: Invocation, short: bool) -> None:
    """Print the version of this program."""
    system = f"{platform.system().lower()}/{platform.machine()}"
    data = {"version": VERSION, "platform": system, "python": platform.python_version()}
    rows = (f"{name.capitalize() + ':':<10}{value}" for name, value in data.items())
    invocation.output.show(Result(data, VERSION if short else "\n".join(rows)))
