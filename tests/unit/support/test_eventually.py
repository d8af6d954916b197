"""The one polling helper."""

from __future__ import annotations

from itertools import count

import pytest

from tests.support.eventually import eventually, eventually_async


def test_returns_the_first_true_answer() -> None:
    numbers = count()
    assert eventually(lambda: next(numbers), every_s=0) == 1


def test_an_assertion_that_fails_means_not_yet() -> None:
    numbers = count()

    def claim() -> bool:
        assert next(numbers) > 2
        return True

    assert eventually(claim, every_s=0)


def test_says_the_last_answer_when_the_time_is_over() -> None:
    with pytest.raises(AssertionError, match=r"(?s)last answer was \[\].*the log"):
        eventually(list[int], 0, describe=lambda: "the log")


def test_other_errors_come_through_at_once() -> None:
    with pytest.raises(ZeroDivisionError):
        eventually(lambda: 1 / 0)


async def test_async_claim_is_awaited() -> None:
    numbers = count()

    async def claim() -> int:
        return next(numbers)

    assert await eventually_async(claim, every_s=0) == 1
    with pytest.raises(AssertionError):
        await eventually_async(_never, 0)


async def _never() -> bool:
    return False
