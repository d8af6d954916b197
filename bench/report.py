"""The results as a page: `docs/performance.md` between its marks, and charts beside it."""

from __future__ import annotations

import json
import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pygal
from pygal.style import CleanStyle

from agent.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
KEPT = ROOT / "bench" / "results.json"
"""The rows of each scenario's last run: the page is made of all of them."""
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """How a scenario was run."""

    scale: float
    rounds: int
    took_s: float


def write(name: str, rows: Rows, run: Run) -> None:
    """Put a scenario's rows in place of its last ones; make the page's tables and charts anew."""
    kept: dict[str, dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    rounded = [{key: _rounded(value) for key, value in row.items()} for row in rows]
    kept[name] = {"run": _machine(run), "rows": rounded}
    KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    render(kept)


def render(kept: dict[str, dict[str, Any]]) -> None:
    """The page's tables and charts, of each scenario's last run."""
    parts = [f"### {name}\n\n{one['run']}\n\n{table(one['rows'])}" for name, one in kept.items()]
    IMAGES.mkdir(exist_ok=True)
    for image, drawn in _charts({each: one["rows"] for each, one in kept.items()}).items():
        (IMAGES / image).write_bytes(drawn)
        parts.append(f"![{image.removesuffix('.svg')}](images/{image})")
    page = PAGE.read_text()
    between = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    body = "\n\n".join(parts)
    PAGE.write_text(between.sub(lambda _: f"{BEGIN}\n{body}\n{END}", page))


def _rounded(value: object) -> object:
    """The fourth digit behind the point is noise."""
    return round(value, 3) if isinstance(value, float) else value


def table(rows: list[dict[str, Any]]) -> str:
    """A table with the union of the rows' columns, in order of appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _machine(run: Run) -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"Run of {datetime.now(UTC):%Y-%m-%d}: Tidelog {VERSION}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores ({model}), "
        f"{memory_gib:.0f} GiB, scale {run.scale:g}, "
        f"{run.rounds} alternating rounds (medians), {run.took_s:.0f} s in all, "
        f"load {os.getloadavg()[0]:.1f} at the end."
    )


def _charts(results: dict[str, Rows]) -> dict[str, bytes]:
    charts: dict[str, bytes] = {}
    compared = [
        row
        for rows in results.values()
        for row in rows
        if "limit s" in row and ("wall s" in row or "operations/s" in row)
    ]
    if compared:
        chart = pygal.HorizontalBar(style=CleanStyle, title="Wall seconds beside the limit")
        chart.x_labels = [row["what"] for row in compared]
        chart.add("Tidelog", [row["wall s"] for row in compared])
        chart.add("limit", [row["limit s"] for row in compared])
        charts["limits.svg"] = chart.render()
    if rows := results.get("growth with the data"):
        chart = pygal.XY(style=CleanStyle, title="Growth with the data", x_title="BSON MB")
        for column in ("backup s", "restore s"):
            chart.add(column, [(row["BSON MB"], row[column]) for row in rows])
        charts["growth-data.svg"] = chart.render()
    if rows := results.get("growth with the backups kept"):
        chart = pygal.XY(style=CleanStyle, title="Growth with the backups kept", x_title="backups")
        kept = [int(row["what"].partition(" ")[0]) for row in rows]
        for column in ("list s", "status s", "resync s", "cleanup s", "delete of one s"):
            chart.add(column, list(zip(kept, [row[column] for row in rows], strict=True)))
        charts["growth-kept.svg"] = chart.render()
    return charts
