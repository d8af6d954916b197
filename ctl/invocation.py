"""One call of `ctl`: where the cluster is, how to answer, and what a command's work looks like.

A command parses its flags and hands `perform` a coroutine function `run(session) -> Result`. `run`
prints nothing; `perform` opens the session, awaits it and writes the result. Imports no driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import click

from agent.errors import TidelogError
from ctl.exit_codes import exit_code

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ctl.output import Output
    from ctl.session import Session

FORMATS: Final = ("text", "json", "json-pretty")


@dataclass(frozen=True, slots=True)
class Result:
    """What a command answers: the same as plain JSON values and as text."""

    data: Any
    text: RenderableType | None = None
    fault: TidelogError | None = None
    """What went wrong although there is an answer: it is told as well, and is the exit status."""


Connect = Callable[["Invocation"], AbstractAsyncContextManager["Session"]]


def _connect(invocation: Invocation) -> AbstractAsyncContextManager[Session]:
    from ctl.session import open_session

    return open_session(invocation)


@dataclass
class Invocation:
    """The global options, and what tests replace."""

    mongodb_uri: str | None = None
    out: str = "text"
    connect: Connect = _connect
    followed: str | None = None
    """What goes on when the client is interrupted, e.g. `backup 2026-…`."""
    is_endless: bool = False
    """Whether it ends by being interrupted, which is no error then."""
    _output: Output | None = field(default=None, repr=False)

    @property
    def output(self) -> Output:
        """The streams, made on first use."""
        if self._output is None:
            from ctl.output import Output

            self._output = Output(self.out)
        return self._output

    def perform(self, run: Callable[[Session], Awaitable[Result | None]]) -> None:
        """Connect, do the work, write the result."""
        result = asyncio.run(self._with_session(run))
        if result is not None:
            self.report(result)

    def report(self, result: Result) -> None:
        """Write a result, and end with its fault if it has one."""
        if result.fault is None:
            self.output.show(result)
            return
        told = {"error": str(result.fault), "hint": result.fault.hint}
        self.output.show(replace(result, data={**result.data, **told}))
        self.output.note(f"Error: {result.fault}")
        if result.fault.hint:
            self.output.note(f"Hint: {result.fault.hint}")
        raise click.exceptions.Exit(exit_code(result.fault))

    async def _with_session(
        self, run: Callable[[Session], Awaitable[Result | None]]
    ) -> Result | None:
        async with self.connect(self) as session:
            return await run(session)


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)
