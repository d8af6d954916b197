"""Sessions are used again, by one at a time, and never after something failed in one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.mongo.sessions import MOST_IDLE, Sessions
from tests.unit.mongo.scripted_node import StillClient


async def test_one_after_the_other_uses_the_same_session() -> None:
    client, sessions = StillClient(), Sessions()
    for _ in range(3):
        async with sessions.left(await sessions.take(client)):
            pass
    assert len(client.started) == 1


async def test_two_at_a_time_have_two_sessions() -> None:
    client, sessions = StillClient(), Sessions()
    first = await sessions.take(client)
    second = await sessions.take(client)
    async with sessions.left(first), sessions.left(second):
        pass
    assert first is not second
    assert await sessions.take(client) in client.started
    assert await sessions.take(client) in client.started
    assert len(client.started) == 2


@pytest.mark.parametrize("failure", [RuntimeError, asyncio.CancelledError])
async def test_a_session_that_something_failed_in_is_ended(failure: type[BaseException]) -> None:
    client, sessions = StillClient(), Sessions()
    session = await sessions.take(client)
    with pytest.raises(failure):
        async with sessions.left(session):
            raise failure
    assert session.has_ended
    assert await sessions.take(client) is not session


async def test_a_session_that_its_user_ended_is_not_used_again() -> None:
    client, sessions = StillClient(), Sessions()
    session = await sessions.take(client)
    async with sessions.left(session):
        await session.end_session()
    assert await sessions.take(client) is not session


async def test_a_session_of_a_client_that_was_replaced_is_not_used_again() -> None:
    old, new, sessions = StillClient(), StillClient(), Sessions()
    async with sessions.left(await sessions.take(old)):
        pass
    assert (await sessions.take(new)).client is new


async def test_no_more_sessions_wait_than_are_of_use_and_none_outlives_its_node() -> None:
    client, sessions = StillClient(), Sessions()
    taken: list[Any] = [await sessions.take(client) for _ in range(MOST_IDLE + 3)]
    for session in taken:
        async with sessions.left(session):
            pass
    assert sum(not session.has_ended for session in taken) == MOST_IDLE
    await sessions.aclose()
    assert all(session.has_ended for session in taken)
