"""`python -m tests.demo`: see a backup under load restored exactly. See `story`."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from rich.console import Console

from tests.demo.stage import StepFailedError
from tests.demo.story import Story


def main() -> int:
    """Tell the story; 0 only if what was restored equals what was backed up."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument(
        "--size", type=int, default=64, metavar="MB", help="data to load (default: 64)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the writes (default: 1)")
    parser.add_argument(
        "--keep", action="store_true", help="leave the repository and the logs behind"
    )
    options = parser.parse_args()
    # Ended from outside, it must still stop its servers.
    signal.signal(signal.SIGTERM, _leave)
    console = Console(highlight=False)
    try:
        equal = Story(console, size_mb=options.size, seed=options.seed, keep=options.keep).tell()
    except (StepFailedError, AssertionError) as error:  # the latter: what a support class demands
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted", style="yellow")
        return 130
    return 0 if equal else 1


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
