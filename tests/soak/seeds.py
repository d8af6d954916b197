"""`make seeds`: SEEDS (200) random histories from SEED on, each proven here within seconds.

Of every fifth, a moment in its middle is compared with what mongod's own recovery makes of it. A
line is printed every ten seeds, and the sum at the end; the exit status is 1 if anything differed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import traceback

import structlog

from tests.support.histories import LARGE_WEIGHTS, Told, prove_history
from tests.support.mongod import ReplicaSet, SetOptions

_TOLD_EVERY = 10
_ORACLE_EVERY = 5
_WITHIN_S = 300.0


async def _prove(first: int, seeds: int) -> Told:
    told = Told()
    async with ReplicaSet(SetOptions(name="seeds", oplog_mb=990)) as replset:
        for seed in range(first, first + seeds):
            before = len(told.failures)
            try:
                async with asyncio.timeout(_WITHIN_S):
                    await prove_history(
                        replset,
                        seed,
                        told,
                        weights=LARGE_WEIGHTS,
                        with_oracle=seed % _ORACLE_EVERY == 0,
                    )
            except Exception:
                told.failures.append(f"seed {seed}: {traceback.format_exc()}")
                for node in replset.nodes:
                    if not node.is_running:
                        told.failures.append(f"seed {seed}: {node!r} died\n{node.epitaph()}")
                        await asyncio.to_thread(node.start)
            for failure in told.failures[before:]:
                _say(f"  {failure}")
            if (seed - first + 1) % _TOLD_EVERY == 0:
                _say(f"seed {seed}: {told}")
    return told


def main() -> int:
    """Prove them all."""
    first = int(os.environ.get("SEED") or random.randrange(2**31))
    seeds = int(os.environ.get("SEEDS") or 200)
    _say(f"{seeds} seeds, beginning with {first}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    told = asyncio.run(_prove(first, seeds))
    _say(f"ended: {told}")
    return 1 if told.failures else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
