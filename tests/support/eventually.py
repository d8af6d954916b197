"""The one way to wait in tests: ask again until the claim holds or its time is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    claim: Callable[[], T],
    within_s: float = 10.0,
    *,
    every_s: float = 0.05,
    retry_on: tuple[type[Exception], ...] = (AssertionError,),
    describe: Callable[[], str] | None = None,
) -> T:
    """Return the first true answer of `claim`; fail with the last one when the time is over.

    An answer that is false, or an exception of `retry_on`, means "not yet".
    """
    deadline = time.monotonic() + within_s
    while True:
        outcome, answer = _ask(claim, retry_on)
        if outcome is None and answer:
            return answer
        if time.monotonic() >= deadline:
            raise AssertionError(_verdict(within_s, answer, describe)) from outcome
        time.sleep(every_s)


async def eventually_async(
    claim: Callable[[], Awaitable[T]],
    within_s: float = 10.0,
    *,
    every_s: float = 0.05,
    retry_on: tuple[type[Exception], ...] = (AssertionError,),
) -> T:
    """`eventually` for a coroutine function; leaves the event loop free between two tries."""
    deadline = time.monotonic() + within_s
    while True:
        outcome: Exception | None = None
        answer: T | None = None
        try:
            answer = await claim()
        except retry_on as error:
            outcome = error
        if outcome is None and answer:
            return answer
        if time.monotonic() >= deadline:
            raise AssertionError(_verdict(within_s, answer, None)) from outcome
        await asyncio.sleep(every_s)


def _ask(
    claim: Callable[[], T], retry_on: tuple[type[Exception], ...]
) -> tuple[Exception | None, T | None]:
    try:
        return None, claim()
    except retry_on as error:
        return error, None


def _verdict(within_s: float, answer: object, describe: Callable[[], str] | None) -> str:
    detail = f"\n{describe()}" if describe is not None else ""
    return f"not true within {within_s:g} s; the last answer was {answer!r}{detail}"
