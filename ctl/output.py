"""Where answers go: results to stdout, everything else to stderr; text or JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from agent.errors import Refused
from ctl.render import WIDTH

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ctl.invocation import Result


class Output:
    """The two streams in the format that was asked for. Colours only on a terminal."""

    def __init__(self, out: str = "text") -> None:
        self.is_json = out != "text"
        self._indent = 2 if out == "json-pretty" else None

    @property
    def is_interactive(self) -> bool:
        """Whether there is a person to ask."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def console(self, *, stderr: bool = False) -> Console:
        """A console on the stream as it is now."""
        stream = sys.stderr if stderr else sys.stdout
        width = None if stream.isatty() else WIDTH
        return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)

    def show(self, result: Result) -> None:
        """Write a command's result."""
        if self.is_json:
            self.record(result.data)
        elif result.text is not None:
            self.text(result.text)

    def frame(self, result: Result) -> None:
        """One of several results: a page on a terminal, a line as JSON."""
        if self.is_json:
            self.record(result.data, compact=True)
            return
        console = self.console()
        console.clear()  # does nothing unless a terminal
        if result.text is not None:
            console.print(result.text)

    def record(self, data: Any, *, compact: bool = False) -> None:
        """One JSON value on stdout."""
        indent = None if compact else self._indent
        click.echo(json.dumps(data, indent=indent, ensure_ascii=False, default=str))

    def text(self, renderable: RenderableType) -> None:
        """Text on stdout."""
        # Soft wrap for plain lines: a long name or path stays whole for who copies it.
        self.console().print(renderable, soft_wrap=isinstance(renderable, str))

    def note(self, sentence: str) -> None:
        """A remark on stderr, whatever the format."""
        click.echo(sentence, err=True)

    def confirm(self, renderable: RenderableType, question: str, *, yes: bool) -> bool:
        """Show what would go and ask. Raises `Refused` where nobody can answer."""
        if yes:
            return True
        if not self.is_interactive:
            can_try = "dry_run" in click.get_current_context().params
            raise Refused(
                "this has to be confirmed, and there is no terminal to ask on",
                hint="add -y to confirm"
                + (", or --dry-run to see what would happen" if can_try else ""),
            )
        self.console(stderr=True).print(renderable, soft_wrap=isinstance(renderable, str))
        return click.confirm(question, default=False, err=True)
