"""The last word on a test that does not end, whatever it hangs in.

pytest-timeout breaks off a test once, by an exception in the main thread. What follows has no limit
any more: fixtures that wait for what will not happen, an event loop that waits for its threads.
Here a process that is still in the same test some time later says where all its threads and tasks
are, and ends. The watchdog of `tests.support.reaper` ends the servers; under pytest-xdist the test
is counted as failed, by its name, and another process goes on with the rest.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

GRACE_S = 60.0
"""For what follows the end of a test's own time: its fixtures, and those of its module."""
STATUS = 70


_out = 2


def keep_stderr() -> None:
    """Remember where messages go, while pytest does not capture them."""
    global _out
    _out = os.dup(2)


@contextmanager
def deadline(name: str, within_s: float) -> Iterator[None]:
    """End this process if the body does not end in time."""
    timer = threading.Timer(within_s, _give_up, (name, within_s))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _give_up(name: str, within_s: float) -> None:
    try:
        with open(_out, "w", closefd=False) as out:
            print(f"\n{name} has not ended after {within_s:g} s; threads and tasks:", file=out)
            out.flush()
            faulthandler.dump_traceback(out.fileno())
            for task in [one for one in gc.get_objects() if isinstance(one, asyncio.Task)]:
                if not task.done():
                    describe(task, out)
    finally:
        os._exit(STATUS)


def describe(task: asyncio.Task[Any], out: TextIO) -> None:
    """Where a task is, from its first coroutine to what it waits for."""
    print(f"task {task.get_name()} (cancelled {task.cancelling()} times)", file=out)
    inner: Any = task.get_coro()
    while inner is not None:
        frame = getattr(inner, "cr_frame", None) or getattr(inner, "ag_frame", None)
        if frame is not None:
            print(f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}", file=out)
        last, inner = inner, getattr(inner, "cr_await", None) or getattr(inner, "ag_await", None)
    print(f"  waits for {last!r:.200}", file=out)
