"""The rules that lead and workers go by: what to do in a state, and what an error means.

`decide` is a pure function of the operation document, so any agent that finds an operation, in
whatever state another left it, knows the next step. `verdict` maps errors to what becomes of the
operation by the branches of `agent.errors`, and `patiently` carries a control write over a change
of primary. The one broad `except` of operations is here too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum, auto
from typing import Any, Final, TypeVar

import structlog

from agent.clock import Clock, jittered
from agent.coordination.lease import HeldLease
from agent.errors import (
    ConfigError,
    NodeUnavailable,
    OperationCancelled,
    Permanent,
    Refused,
    Superseded,
    TidelogError,
    Transient,
    root_cause,
)
from agent.tasks import TaskGroup
from agent.wire.operations import ErrorRecord, Operation, State

MAX_ATTEMPTS: Final = 5
LONGEST_BACKOFF_S: Final = 30.0
_WRITE_RETRY_S: Final = 0.1
_LONGEST_WRITE_RETRY_S: Final = 1.0

T = TypeVar("T")
log = structlog.stdlib.get_logger()


class Step(Enum):
    """What the lead does next."""

    CANCEL = auto()
    CHOOSE = auto()
    AWAIT_WORKERS = auto()
    PREPARE = auto()
    RUN = auto()
    FAIL = auto()
    AWAIT_WORK = auto()
    PUBLISH = auto()
    FINISH = auto()
    STOP = auto()


def decide(operation: Operation) -> Step:
    """The lead's next step for an operation as it is."""
    if operation.state.is_terminal:
        return Step.STOP
    if operation.state is State.PUBLISHING:
        return Step.FINISH
    if operation.cancel_requested:
        return Step.CANCEL
    if any(part.state in (State.FAILED, State.CANCELLED) for part in operation.parts):
        return Step.FAIL
    if operation.state is State.REQUESTED:
        return Step.CHOOSE
    if operation.state is State.ELECTING:
        taken = all(part.epoch > 0 for part in operation.parts)
        return Step.PREPARE if taken else Step.AWAIT_WORKERS
    if operation.state is State.PREPARING:
        return Step.RUN
    done = all(part.state is State.DONE for part in operation.parts)
    return Step.PUBLISH if done else Step.AWAIT_WORK


class Verdict(Enum):
    """What becomes of an operation or a part after an error."""

    STOP = auto()
    """Somebody else acts: say nothing."""
    CANCELLED = auto()
    FAILED = auto()
    RETRY = auto()
    """Another attempt, by whoever wins the next bid."""


def verdict(error: BaseException) -> Verdict:
    """By the branch of the error tree; what is unexpected is tried again."""
    if isinstance(error, OperationCancelled):
        return Verdict.CANCELLED
    if isinstance(error, Superseded):
        return Verdict.STOP
    if isinstance(error, Permanent | Refused | ConfigError):
        return Verdict.FAILED
    return Verdict.RETRY


def error_record(error: BaseException, node: str) -> ErrorRecord:
    """An error as the operation document keeps it."""
    if isinstance(error, TidelogError):
        return ErrorRecord(
            type=type(error).__name__, message=error.message, hint=error.hint, node=node
        )
    text = str(error) or type(error).__name__
    return ErrorRecord(
        type=type(error).__name__, message=text[:1000], hint="see the agent's log", node=node
    )


def retry_delay_s(attempts: int) -> float:
    """How long everybody waits before the next attempt, after so many."""
    return 0.0 if attempts <= 0 else min(2.0 ** (attempts - 1), LONGEST_BACKOFF_S)


async def patiently(
    held: HeldLease, clock: Clock, call: Callable[[], Awaitable[T]], *, what: str
) -> T:
    """Make a control write that must not fail for a change of primary: again and again while the
    lease lasts. The write must be one that may be repeated. Raises `LeaseLost`."""
    pause_s = _WRITE_RETRY_S
    while True:
        held.check()
        try:
            return await call()
        except Transient as error:
            log.warning("control.write_retried", what=what, error=str(error))
        await clock.sleep(jittered(min(pause_s, max(held.remaining_s, 0.0))))
        pause_s = min(pause_s * 2, _LONGEST_WRITE_RETRY_S)


class _WorkDone(Exception):  # ends the group: the watch has nothing left to watch
    """The work is done."""


async def watched(
    work: Callable[[], Awaitable[T]],
    watch: Callable[[], Coroutine[Any, Any, None]],
    *,
    within_s: float,
    what: str,
) -> T:
    """Do the work while `watch` runs beside it; an error that `watch` raises cancels the work.
    Raises that error, the work's own, or `NodeUnavailable` when the time is over."""
    results: list[T] = []
    try:
        async with asyncio.timeout(within_s) as limit, TaskGroup() as group:
            group.create_task(watch(), name=f"watch {what}")
            results.append(await work())
            raise _WorkDone
    except TimeoutError:
        if not limit.expired():
            raise
        if not results:
            raise NodeUnavailable(f"{what} took longer than {within_s:g} s") from None
    except BaseExceptionGroup as errors:
        if not results:
            cause = root_cause(errors)
            raise cause from cause.__cause__
    return results[0]


async def attempted(act: Callable[[], Awaitable[None]]) -> Exception | None:
    """Do it; answer the error it ended with, whatever it is, for `verdict` to judge."""
    try:
        await act()
    except Exception as error:  # noqa: BLE001  # the caller judges each
        return error
    return None


async def quietly(session: Callable[[], Awaitable[None]], *, what: str) -> None:
    """Run one session of this agent to its end. What it could not handle itself is logged, and
    leaves the operation to the next bid: the agent goes on."""
    try:
        await session()
    except Superseded as error:
        log.info("session.superseded", what=what, reason=str(error))
    except Transient as error:
        log.warning("session.broken", what=what, error=str(error), hint=error.hint)
    except Exception:
        log.exception("session.crashed", what=what)
