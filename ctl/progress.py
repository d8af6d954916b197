"""How progress looks: bars on a terminal, a line now and then elsewhere; always on stderr."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from agent.wire.operations import Operation, Part
from agent.wire.operations import Progress as Amounts
from ctl.render import duration, number, size

if TYPE_CHECKING:
    from ctl.output import Output

WINDOW_S: Final = 20.0
"""The rate is taken over this span."""
LINE_EVERY_S: Final = 10.0
REMIND_EVERY_S: Final = 30.0


class Reporter(Protocol):
    """Shows how far an operation is."""

    def show(self, operation: Operation) -> None:
        """The operation as it is now."""

    def say(self, sentence: str) -> None:
        """A remark."""

    def hinder(self, sentence: str | None) -> None:
        """What stands in its way now; called again while it does, and with None when it is gone."""


@dataclass
class Rate:
    """Bytes a second and the time left, of one replica set."""

    samples: deque[tuple[float, int]] = field(default_factory=deque)
    stage: str = ""

    def add(self, now: float, amounts: Amounts) -> None:
        """One more reading; a new stage starts anew."""
        if amounts.stage != self.stage or (
            self.samples and amounts.bytes_done < self.samples[-1][1]
        ):
            self.samples.clear()
            self.stage = amounts.stage
        self.samples.append((now, amounts.bytes_done))
        while len(self.samples) > 2 and now - self.samples[0][0] > WINDOW_S:
            self.samples.popleft()

    @property
    def bytes_s(self) -> float | None:
        """None until two readings lie apart."""
        if len(self.samples) < 2 or self.samples[-1][0] - self.samples[0][0] < 0.5:
            return None
        (first, before), (last, after) = self.samples[0], self.samples[-1]
        return (after - before) / (last - first)

    def left_s(self, amounts: Amounts) -> float | None:
        """None where the total or the rate is not known."""
        rate = self.bytes_s
        left = amounts.bytes_total - amounts.bytes_done
        return None if not rate or left <= 0 else left / rate


@contextmanager
def open_reporter(output: Output, name: str, now: Callable[[], float]) -> Iterator[Reporter]:
    """Bars if stderr is a terminal, lines otherwise."""
    if not sys.stderr.isatty():
        yield LineReporter(output, name, now)
        return
    console = output.console(stderr=True)
    reporter = BarReporter(console, name, now)
    # No thread: the poll draws, so nothing is drawn after the end.
    with Live(reporter, console=console, auto_refresh=False) as live:
        reporter.redraw = live.refresh
        yield reporter


class BarReporter:
    """One bar a replica set, and below them what stands in the way."""

    def __init__(self, console: Console, name: str, now: Callable[[], float]) -> None:
        self._console = console
        self._name = name
        self._now = now
        self._hindrance = ""
        self._rates: dict[str, Rate] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16 if console.width >= 100 else 8),
            TextColumn("{task.fields[bytes]}", justify="right"),
            TextColumn("{task.fields[documents]}", justify="right"),
            TextColumn("{task.fields[rate]}", justify="right"),
            console=console,
            auto_refresh=False,
        )
        self._head = self._add(name)
        self.redraw: Callable[[], None] = lambda: None

    def __rich__(self) -> RenderableType:
        bars = self._bars.get_renderable()
        return Group(bars, Text(self._hindrance, "yellow")) if self._hindrance else bars

    def show(self, operation: Operation) -> None:
        for part in operation.parts:
            self._show_part(part)
        over = operation.state.is_terminal
        self._bars.update(
            self._head,
            description=f"{self._name}: {operation.state.value}",
            visible=not operation.parts,
            total=1 if over else None,
            completed=1 if over else 0,
        )
        self.redraw()

    def say(self, sentence: str) -> None:
        self._console.print(sentence, soft_wrap=True)

    def hinder(self, sentence: str | None) -> None:
        self._hindrance = sentence or ""
        self.redraw()

    def _add(self, description: str) -> TaskID:
        return self._bars.add_task(description, total=None, bytes="", documents="", rate="")

    def _show_part(self, part: Part) -> None:
        if part.replset not in self._tasks:
            self._tasks[part.replset] = self._add(part.replset)
        amounts = part.progress
        rate = self._rates.setdefault(part.replset, Rate())
        rate.add(self._now(), amounts)
        over = part.state.is_terminal
        total = max(amounts.bytes_total, amounts.bytes_done)
        left = rate.left_s(amounts)
        self._bars.update(
            self._tasks[part.replset],
            description=f"{part.replset} {stage_of(part)}",
            total=1 if over else total or None,
            completed=1 if over else amounts.bytes_done,
            bytes=_of(size(amounts.bytes_done), size(total)),
            documents=f"{number(amounts.documents_done)} docs",
            rate="" if over else _pace(rate.bytes_s, left),
        )


class LineReporter:
    """A line where something changed, else one every ten seconds."""

    def __init__(self, output: Output, name: str, now: Callable[[], float]) -> None:
        self._output = output
        self._name = name
        self._now = now
        self._rates: dict[str, Rate] = {}
        self._stages: dict[str, str] = {}
        self._told_at: dict[str, float] = {}
        self._hindrance_told: float | None = None

    def show(self, operation: Operation) -> None:
        if not operation.parts:
            self._tell("", operation.state.value, operation.state.value)
        for part in operation.parts:
            rate = self._rates.setdefault(part.replset, Rate())
            rate.add(self._now(), part.progress)
            self._tell(part.replset, stage_of(part), _line(part, rate))

    def say(self, sentence: str) -> None:
        self._output.note(f"{self._name}: {sentence}")

    def hinder(self, sentence: str | None) -> None:
        now = self._now()
        if sentence is None:
            if self._hindrance_told is not None:
                self.say("it goes on")
            self._hindrance_told = None
        elif self._hindrance_told is None or now - self._hindrance_told >= REMIND_EVERY_S:
            self._hindrance_told = now
            self.say(sentence)

    def _tell(self, key: str, stage: str, line: str) -> None:
        now = self._now()
        is_new = self._stages.get(key) != stage
        if is_new or now - self._told_at[key] >= LINE_EVERY_S:
            self._stages[key], self._told_at[key] = stage, now
            self.say(line)


def stage_of(part: Part) -> str:
    """What a part does now, in one word or two."""
    return part.state.value if part.state.is_terminal else part.progress.stage or part.state.value


def _line(part: Part, rate: Rate) -> str:
    amounts = part.progress
    words = [f"{part.replset} {stage_of(part)}"]
    if amounts.bytes_done or amounts.bytes_total:
        total = max(amounts.bytes_total, amounts.bytes_done)
        words.append(_of(size(amounts.bytes_done), size(total)))
    if amounts.documents_done:
        words.append(f"{number(amounts.documents_done)} documents")
    if rate.bytes_s is not None and not part.state.is_terminal:
        words.append(_pace(rate.bytes_s, rate.left_s(amounts)))
    return ", ".join(words)


def _of(done: str, total: str) -> str:
    same_unit = done.rpartition(" ")[2] == total.rpartition(" ")[2]
    return f"{done.rpartition(' ')[0] if same_unit else done}/{total}"


def _pace(bytes_s: float | None, left_s: float | None) -> str:
    if bytes_s is None:
        return ""
    eta = f" ETA {duration(left_s)}" if left_s is not None else ""
    return f"{size(bytes_s)}/s{eta}"
