"""Blocking calls in threads: bounded, cancellable, cleaned up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from agent.storage.threads import Threads

pytestmark = pytest.mark.unit


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Calls wait for this; it opens at the end whatever happens."""
    event = threading.Event()
    yield event
    event.set()


async def test_results_and_errors_come_back() -> None:
    threads = Threads(2, "test")
    assert await threads.run(lambda: threading.current_thread().name) == "test_0"
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        await threads.finish(lambda: 1 // 0)  # type: ignore[arg-type]
    await threads.aclose()


async def test_a_cancelled_call_that_has_not_begun_never_does(gate: threading.Event) -> None:
    threads = Threads(1, "test")
    began: list[str] = []
    async with asyncio.TaskGroup() as group:
        first = group.create_task(threads.run(gate.wait))
        second = group.create_task(threads.run(lambda: began.append("second")))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.sleep(0)
        gate.set()
    assert first.result()
    assert second.cancelled()
    await threads.aclose()
    assert began == []


async def test_a_cancelled_call_that_has_begun_is_not_waited_for(gate: threading.Event) -> None:
    threads = Threads(1, "test", patience_s=0.1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await threads.run(gate.wait)
    gate.set()
    await threads.aclose()


async def test_clean_up_goes_on_when_its_waiter_is_cancelled(gate: threading.Event) -> None:
    threads = Threads(1, "test")
    done: list[str] = []

    def clean() -> None:
        gate.wait()
        done.append("clean")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await threads.finish(clean)
    assert done == []
    gate.set()
    await threads.aclose()
    assert done == ["clean"]


async def test_patience_is_limited(gate: threading.Event) -> None:
    threads = Threads(1, "test", patience_s=0.05)

    def clean() -> None:
        gate.wait()

    async with asyncio.timeout(5):
        await threads.finish(clean)
        await threads.aclose()


async def test_nothing_runs_after_close() -> None:
    threads = Threads(1, "test")
    await threads.aclose()
    await threads.aclose()
    with pytest.raises(RuntimeError):
        await threads.run(lambda: None)
