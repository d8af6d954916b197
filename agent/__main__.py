"""`tidelog-agent`, `python -m agent`: arguments in, exit status out.

0  asked to stop, and stopped        3  refused, e.g. a second agent on the node
1  a fault of our own                5  the database did not answer for too long
2  bad usage or settings
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

# Motor reads it when it is imported, and makes as many threads at most; each pending call to the
# database holds one.
os.environ.setdefault("MOTOR_MAX_WORKERS", "48")

import structlog
import uvloop

from agent import config as local
from agent.allocator import keep_few_arenas
from agent.clock import SystemClock
from agent.errors import (
    ConfigError,
    PermissionDenied,
    Refused,
    TidelogError,
    Transient,
    root_cause,
)
from agent.log import EventSink, configure
from agent.service import Signals, run
from agent.version import VERSION

STOPPED: Final = 0
FAULT: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
UNREACHABLE: Final = 5

log = structlog.stdlib.get_logger()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; answers the exit status."""
    given = _parser().parse_args(arguments)
    keep_few_arenas()
    # What is imported stays: no use in looking through it for garbage, which holds the event loop.
    gc.freeze()
    sink = EventSink(SystemClock())
    try:
        load = partial(local.load, given.config, os.environ, _overrides(given))
        config = load()
        configure(level=config.log.level, style=config.log.format, sink=sink)
        config.uri()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(config, load, sink))
    except ConfigError as error:
        return _ended(error, USAGE)
    except TidelogError as error:
        return _ended(error, status_of(error))
    except KeyboardInterrupt:
        return STOPPED
    return STOPPED


def program() -> NoReturn:
    """`main`, and then the end of the process, at once: the driver's threads cannot be told to
    stop, and one that waits for a server that builds an index would hold up the end as long."""
    status = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def status_of(error: BaseException) -> int:
    """The exit status that tells a supervisor what kind of end this was."""
    cause = root_cause(error)
    if isinstance(cause, ConfigError | PermissionDenied):
        return USAGE
    if isinstance(cause, Refused):
        return REFUSED
    return UNREACHABLE if isinstance(cause, Transient) else FAULT


async def _serve(config: local.Config, load: Any, sink: EventSink) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, partial(_reload, load, sink))
    await run(config, Signals(stop), sink)


def _reload(load: Any, sink: EventSink) -> None:
    """SIGHUP: what can change while running does; wrong settings change nothing."""
    try:
        config = load()
        config.uri()
    except ConfigError as error:
        log.error("agent.reload_failed", error=str(error), hint=error.hint)
        return
    configure(level=config.log.level, style=config.log.format, sink=sink)
    log.info("agent.reloaded", log_level=config.log.level)


def _ended(error: TidelogError, status: int) -> int:
    log.critical("agent.failed", error=str(error), hint=error.hint, exit_status=status)
    return status


def _overrides(given: argparse.Namespace) -> dict[str, Any]:
    return {
        "mongodb.uri": given.mongodb_uri,
        "log.format": given.log_format,
        "log.level": given.log_level,
        "listen": given.listen,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidelog-agent",
        description="Backs up the MongoDB node beside which it runs. Settings come from --config,"
        " then TIDELOG_SECTION__FIELD in the environment, then these flags.",
    )
    parser.add_argument(
        "--mongodb-uri",
        metavar="URI",
        help="connection string of the node; better in TIDELOG_MONGODB_URI, which 'ps' hides",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="local settings, YAML")
    parser.add_argument("--log-format", choices=("auto", "json", "console"))
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--listen", metavar="HOST:PORT", help="serve page, health and metrics here")
    parser.add_argument("--version", action="version", version=f"tidelog-agent {VERSION}")
    return parser


if __name__ == "__main__":
    program()
