"""`ctl completion`: the script that a shell sources."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ctl.app import app
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options

PROGRAMS = ("ctl", "tidelog")
SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@global_options
@pass_invocation
def command(invocation: Invocation, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash: ctl completion bash > /etc/bash_completion.d/ctl
    zsh:  ctl completion zsh > "${fpath[1]}/_ctl"
    fish: ctl completion fish > ~/.config/fish/completions/ctl.fish
    """
    text = "\n".join(script(shell, program) for program in PROGRAMS)
    invocation.output.show(Result({"shell": shell, "script": text}, text))


def script(shell: str, program: str) -> str:
    """The script for one name of the program."""
    found = get_completion_class(shell)
    assert found is not None, shell
    writer = found(app, {}, program, "_CTL_COMPLETE")
    # `writer.source()` would start the shell to ask for its version.
    return writer.source_template % writer.source_vars()
