"""`python -m tests.support.metrics_reference` writes the metrics of docs/monitoring.md."""

from __future__ import annotations

import sys
from typing import Final

from agent.web.catalogue import AGENT, CLUSTER, REPLSET, Metric
from tests.support.product import ROOT

PAGE: Final = ROOT / "docs" / "monitoring.md"
_BEGIN: Final = "<!-- metrics -->\n"
_END: Final = "<!-- end of metrics -->\n"
_GROUPS: Final = {
    "Of the cluster": CLUSTER,
    "Of a replica set and its nodes": REPLSET,
    "Of the agent": AGENT,
}


def page(text: str) -> str:
    """The page with the table as it has to be."""
    head, _, rest = text.partition(_BEGIN)
    tail = rest.partition(_END)[2]
    return head + _BEGIN + "\n".join(_table(t, m) for t, m in _GROUPS.items()) + _END + tail


def _table(title: str, metrics: dict[str, Metric]) -> str:
    rows = [
        f"| `{name}` | {'counter' if metric.is_counter else 'gauge'} |"
        f" {', '.join(metric.labels)} | {metric.help} |"
        for name, metric in metrics.items()
    ]
    head = [f"**{title}**\n", "| metric | type | labels | tells |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
