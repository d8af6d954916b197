"""One debug event and a few counts for each call."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from agent.errors import ObjectNotFound, StorageUnavailable
from agent.storage.base import get_bytes, put_bytes
from agent.storage.memory import MemoryStorage
from agent.storage.observing import VERBS, Observer, ObservingStorage, StorageCounters, VerbCounts
from agent.storage.registry import StorageOptions, wrap
from agent.storage.retrying import RetryPolicy
from tests.support.faulty_storage import FaultyStorage
from tests.unit.storage.clocks import FakeClock

pytestmark = pytest.mark.unit


async def observed() -> tuple[ObservingStorage, FaultyStorage, FakeClock]:
    clock, faulty = FakeClock(), FaultyStorage(await MemoryStorage.open(), clock=FakeClock())
    return ObservingStorage(faulty, Observer("memory://x", clock=clock)), faulty, clock


async def test_every_verb_is_counted_and_logged_once() -> None:
    with capture_logs() as events:
        storage, _, _ = await observed()
        await put_bytes(storage, "a", b"body")
        await put_bytes(storage, "b", b"12")
        await get_bytes(storage, "a")
        await storage.stat("a")
        assert len([each async for each in storage.list("")]) == 2
        await storage.delete(iter(["a", "b", "c"]))
        await storage.verify()
    verbs = storage.counters.verbs
    assert {verb: counts.calls for verb, counts in verbs.items()} == {
        "put": 2, "get": 1, "stat": 1, "list": 1, "delete": 1, "verify": 1,
    }  # fmt: skip
    assert (verbs["put"].bytes, verbs["get"].bytes) == (6, 4)
    assert (verbs["list"].objects, verbs["delete"].objects) == (2, 3)
    assert [event["event"] for event in events] == [
        "storage.put", "storage.put", "storage.get", "storage.stat", "storage.list",
        "storage.delete", "storage.verify",
    ]  # fmt: skip
    assert events[0] == {
        "event": "storage.put",
        "log_level": "debug",
        "storage": "memory://x",
        "key": "a",
        "seconds": 0.0,
        "bytes": 4,
    }


async def test_errors_are_counted_logged_and_raised() -> None:
    with capture_logs() as events:
        storage, _, _ = await observed()
        with pytest.raises(ObjectNotFound):
            await get_bytes(storage, "absent")
    assert storage.counters.verbs["get"].errors == 1
    assert (events[0]["error"], events[0]["key"]) == ("ObjectNotFound", "absent")


async def test_a_cancelled_call_is_counted_as_failed() -> None:
    faulty = FaultyStorage(await MemoryStorage.open())
    faulty.delay("stat", 3600)
    storage = ObservingStorage(faulty, Observer("memory://x"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await storage.stat("a")
    assert storage.counters.verbs["stat"].errors == 1


async def test_a_listing_left_early_is_no_error() -> None:
    storage, _, _ = await observed()
    await put_bytes(storage, "a", b"")
    await put_bytes(storage, "b", b"")
    entries = storage.list("")
    await anext(entries)
    await entries.aclose()  # type: ignore[attr-defined]
    assert storage.counters.verbs["list"].errors == 0
    assert storage.counters.verbs["list"].objects == 1


async def test_retries_are_seen_through_all_wrappers() -> None:
    faulty, counters = FaultyStorage(await MemoryStorage.open()), StorageCounters()
    with capture_logs() as events:
        storage = wrap(
            faulty,
            StorageOptions(policy=RetryPolicy(base_delay_s=1), counters=counters),
            clock=FakeClock(),
        )
        faulty.fail("put", StorageUnavailable("no route"), times=2)
        await put_bytes(storage, "a", b"body")
    assert (counters.verbs["put"].calls, counters.verbs["put"].retries) == (1, 2)
    assert counters.verbs["put"].errors == 0
    warned = [event for event in events if event["event"] == "storage.retry"]
    assert [event["attempt"] for event in warned] == [1, 2]
    assert warned[0]["reason"] == "no route"


def test_counters_are_plain_numbers() -> None:
    counters = StorageCounters()
    counters.verbs["put"] = VerbCounts(calls=2, bytes=10)
    assert counters.as_dict()["put"]["bytes"] == 10
    assert set(counters.as_dict()) == set(VERBS)
