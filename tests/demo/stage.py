"""What the audience sees: numbered steps, how long each took, and a table of them at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class StepFailedError(RuntimeError):
    """A step did not do what it should; the message says what to look at."""


@dataclass
class Stage:
    """Prints steps as they happen and remembers their times."""

    console: Console
    steps: int
    _times: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step, named before it begins and timed when it has ended well."""
        number = len(self._times) + 1
        self.console.print(f"\n[bold cyan]{number}/{self.steps}[/] [bold]{escape(title)}[/]")
        started = time.monotonic()
        yield
        taken = time.monotonic() - started
        self._times.append((title, taken))
        self.console.print(f"    [green]done[/] in {taken:.1f} s")

    def note(self, text: str) -> None:
        """A remark on the step under way."""
        self.console.print(f"    {escape(text)}", style="dim", soft_wrap=True)

    def summary(self) -> None:
        """All steps with their times."""
        table = Table(title="What it took", title_justify="left", show_edge=False)
        table.add_column("step")
        table.add_column("seconds", justify="right")
        for title, taken in self._times:
            table.add_row(escape(title), f"{taken:.1f}")
        table.add_section()
        table.add_row("in all", f"{sum(taken for _, taken in self._times):.1f}")
        self.console.print()
        self.console.print(table)
