"""`ctl version`: of this program; `ctl status` shows those of the agents."""

from __future__ import annotations

import importlib.metadata
import platform

import click

from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options


def installed_version() -> str:
    """The version of the distribution this program came with."""
    try:
        return importlib.metadata.version("tidelog")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"  # run from a checkout that was never installed


@click.command("version")
@click.option("-s", "--short", is_flag=True, help="Only the number.")
@global_options
@pass_invocation
def command(invocation: Invocation, short: bool) -> None:
    """Print the version of this program."""
    version = installed_version()
    system = f"{platform.system().lower()}/{platform.machine()}"
    data = {"version": version, "platform": system, "python": platform.python_version()}
    rows = (f"{name.capitalize() + ':':<10}{value}" for name, value in data.items())
    invocation.output.show(Result(data, version if short else "\n".join(rows)))
