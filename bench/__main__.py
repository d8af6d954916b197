"""`make bench`: measure every path of Tidelog beside its limit and write docs/performance.md.

    python -m bench [--scale 1.0] [--rounds 3] [--only NAME …] [--no-write]

A scenario's rows replace those of its last run, so they can be measured one by one. At scale 1 the
sets are 1.1 GB of documents, 20,000 collections and 1,000,000 operations; give it an otherwise idle
machine and three quarters of an hour. Smaller scales show ratios only.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable

from bench import foreground, growth, large, report, scenarios
from bench.scenarios import Row, to_json

SCENARIOS: dict[str, Callable[[float, int], list[Row]]] = {
    "backup and restore": scenarios.backup_and_restore,
    "moderate collections": scenarios.moderate_collections,
    "many collections": scenarios.many_collections,
    "replay": scenarios.replay,
    "control": scenarios.control,
    "foreground": foreground.foreground,
    "growth with the data": growth.data,
    "growth with the backups kept": growth.kept,
}
OPTIONAL: dict[str, Callable[[float, int], list[Row]]] = {
    "one large collection": large.large_collection,
}
"""Only where asked for: 5 GB take a while to load."""


def main() -> None:
    """Run them one after the other; each prints its rows as soon as it has them. One that fails
    says so at once, and the others run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", nargs="*", choices=[*SCENARIOS, *OPTIONAL], default=list(SCENARIOS)
    )
    parser.add_argument("--no-write", action="store_true", help="leave docs/performance.md alone")
    chosen = parser.parse_args()
    failed: list[str] = []
    for name in chosen.only:
        print(f"── {name} ──", flush=True)
        begun = time.monotonic()
        try:
            rows = (SCENARIOS | OPTIONAL)[name](chosen.scale, chosen.rounds)
        except Exception:  # noqa: BLE001 - the others have nothing to do with it
            print(f"{name} FAILED", traceback.format_exc(), sep="\n", flush=True)
            failed.append(name)
            continue
        took_s = time.monotonic() - begun
        print(to_json(rows), f"{name}: {took_s:.0f} s", sep="\n", flush=True)
        if not chosen.no_write:
            run = report.Run(chosen.scale, chosen.rounds, took_s)
            report.write(name, rows, run)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
