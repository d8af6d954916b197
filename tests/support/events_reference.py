"""`python -m tests.support.events_reference` writes the table of events in docs/operations.md."""

from __future__ import annotations

import sys
from typing import Final

from agent.log import EVENTS
from tests.support.product import ROOT

PAGE: Final = ROOT / "docs" / "operations.md"
_BEGIN: Final = "<!-- events: written by `make docs` -->\n"
_END: Final = "<!-- end of events -->\n"


def table() -> str:
    """All events that agents log, by name."""
    lines = ["| event | means |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in sorted(EVENTS.items())]
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with the table of now."""
    head, _, rest = text.partition(_BEGIN)
    return head + _BEGIN + table() + _END + rest.partition(_END)[2]


def main() -> int:
    """Write the page anew."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
