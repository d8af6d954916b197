"""How values look: sizes, times, durations, tables. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import yaml
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agent.wire.wording import duration, epoch, moment, number, optime, size

__all__ = [
    "STATE_STYLES",
    "WIDTH",
    "as_yaml",
    "duration",
    "epoch",
    "fields",
    "moment",
    "number",
    "optime",
    "size",
    "state",
    "table",
    "title",
]

WIDTH: Final = 100
"""What text fits into where no terminal says another width."""
STATE_STYLES: Final = {"done": "green", "failed": "red", "cancelled": "yellow", "refused": "red"}


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], indent: int = 0
) -> RenderableType:
    """A table without lines. A column that ends in `>` is flush right, one in `~` may be folded."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.endswith(">") else "left"
        grid.add_column(
            column.rstrip(">~"),
            justify=justify,
            no_wrap=not column.endswith("~"),
            overflow="fold",
        )
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return _indented(grid, indent)


def fields(pairs: Iterable[tuple[str, str]], indent: int = 0) -> RenderableType:
    """Names and values, one a line; without a name the value goes on below the one before."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(f"{name}:" if name else ""), Text(value))
    return _indented(grid, indent)


def _indented(grid: Table, indent: int) -> RenderableType:
    return Padding(grid, (0, 0, 0, indent), expand=False) if indent else grid


def title(words: str) -> Text:
    """The head of a section."""
    return Text(words, style="bold")


def state(name: str) -> Text:
    """A state in its colour."""
    return Text(name, style=STATE_STYLES.get(name, ""))


def as_yaml(value: Any) -> str:
    """Nested facts for a person; absent ones are left out."""
    plain = json.loads(json.dumps(_without_absent(value), default=str))
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=WIDTH)
    return text.rstrip()


def _without_absent(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_absent(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_absent(item) for item in value]
    return value
