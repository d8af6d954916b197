"""Settings followed: this node's priority, and whether the storage works from here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from agent.coordination import settings_watch
from agent.coordination.heartbeat import Condition
from agent.coordination.settings_watch import SettingsWatch, priority_of
from agent.coordination.wakeup import Wakeup
from agent.errors import PermissionDenied, StorageFull, StoreUnavailable, TidelogError
from agent.store.settings_store import SettingsStore
from agent.wire.settings import Settings, load_yaml
from tests.support.eventually import eventually_async
from tests.support.manual_clock import ManualClock, settle

STORAGE = "storage: {type: filesystem, filesystem: {path: /backups}}\n"


class FakeSettings:
    def __init__(self) -> None:
        self.settings, self.version = Settings(), 0
        self.problem: TidelogError | None = None

    def put(self, text: str) -> None:
        self.settings, self.version = load_yaml(text), self.version + 1

    async def read(self) -> tuple[Settings, int]:
        if self.problem is not None:
            raise self.problem
        return self.settings, self.version


class Following:
    def __init__(self) -> None:
        self.store, self.clock, self.wakeup = FakeSettings(), ManualClock(), Wakeup(poll_s=60)
        self.condition = Condition()
        self.checks = 0
        self.problem: Exception | None = None
        self.warning: str | None = None
        self.silent: asyncio.Event | None = None

    async def check(self, settings: Settings, profile: str) -> str | None:
        if profile != "main":
            raise StorageFull(f"{profile} is full")
        self.checks += 1
        if self.silent is not None:
            await self.silent.wait()
        if self.problem is not None:
            raise self.problem
        return self.warning

    def told_error(self) -> str | None:
        return self.condition.storage_error

    async def look(self) -> None:
        self.wakeup.wake()
        await settle()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        watch = SettingsWatch(
            cast(SettingsStore, self.store),
            "h1:27017",
            self.condition,
            self.check,
            self.wakeup,
            self.clock,
        )
        self.watch = watch
        async with asyncio.TaskGroup() as group:
            task = group.create_task(watch.run())
            await settle()
            yield
            task.cancel()


async def test_new_settings_are_checked_once_and_told_with_their_version() -> None:
    following = Following()
    following.store.put(STORAGE)
    async with following.running():
        assert (following.condition.storage_settings_version, following.checks) == (1, 1)
        assert following.condition.changed.is_set()
        await following.look()
        assert following.checks == 1
        following.store.put(STORAGE + "backup: {priority: {h1:27017: 3}}")
        await following.look()
        assert (following.condition.storage_settings_version, following.checks) == (2, 2)
        assert following.condition.priority == 3


async def test_a_storage_that_fails_is_told_and_tried_again_sooner() -> None:
    following = Following()
    following.store.put(STORAGE)
    following.problem = StorageFull("no space left on /backups")
    async with following.running():
        assert following.told_error() == "no space left on /backups"
        following.problem = None
        following.clock.now_s += 16
        await following.look()
        assert following.told_error() is None
        following.clock.now_s += 16
        await following.look()
        assert following.checks == 2


async def test_a_storage_that_does_not_answer_is_let_go_when_the_settings_change() -> None:
    following = Following()
    following.store.put(STORAGE)
    following.silent = asyncio.Event()
    async with following.running():
        await following.look()
        assert (following.condition.storage_settings_version, following.checks) == (None, 1)
        silent, following.silent = following.silent, None
        following.store.put(STORAGE.replace("/backups", "/others"))
        await following.look()
        assert (following.condition.storage_settings_version, following.checks) == (2, 2)
        assert following.told_error() is None
        assert not silent.is_set()


@pytest.mark.parametrize("rounds", range(-8, 9))
async def test_settings_that_change_as_their_storage_answers_are_looked_at(rounds: int) -> None:
    """Whichever of the two comes first, and by however little."""
    following = Following()
    following.store.put(STORAGE)
    silent = following.silent = asyncio.Event()
    async with following.running():
        following.store.put(STORAGE.replace("/backups", "/others"))
        happens = [following.wakeup.wake, silent.set]
        for one in happens if rounds < 0 else reversed(happens):
            one()
            await settle(abs(rounds))
        await settle()
        assert following.condition.storage_settings_version == 2


async def test_what_somebody_else_finds_of_a_storage_is_soon_told() -> None:
    following = Following()
    following.store.put(STORAGE)
    async with following.running():
        following.problem = StorageFull("no space left on /backups")
        following.watch.look_again()
        await settle()
        assert following.told_error() == "no space left on /backups"


async def test_a_storage_that_failed_is_looked_at_again_without_a_wake_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings_watch, "CHECK_FAILED_AGAIN_S", 0.0)
    following = Following()
    following.store.put(STORAGE)
    following.problem = StorageFull("no space left on /backups")
    async with following.running():
        following.problem = None
        following.condition.changed.clear()
        async with asyncio.timeout(10):
            await following.condition.changed.wait()
            while following.told_error() is not None:
                await asyncio.sleep(0)


async def test_what_will_soon_be_a_fault_is_told_until_it_is_mended() -> None:
    following = Following()
    following.store.put(STORAGE)
    following.warning = "the credentials of the storage end in 2d00h: give new ones"
    async with following.running():
        assert following.condition.storage_warnings == {"main": following.warning}
        assert following.told_error() is None
        following.warning = None
        following.clock.now_s += 1801
        await following.look()
        assert following.condition.storage_warnings == {}


async def test_without_a_storage_there_is_nothing_to_check() -> None:
    following = Following()
    async with following.running():
        assert following.checks == 0
        assert following.condition.storage_settings_version == 0
        assert following.condition.storage_error is None


@pytest.mark.parametrize("problem", [StoreUnavailable("away"), PermissionDenied("not allowed")])
async def test_settings_that_cannot_be_read_end_nothing_and_are_waited_for(
    problem: TidelogError,
) -> None:
    following = Following()
    following.store.problem = problem
    async with following.running():
        assert following.checks == 0
        following.store.problem = None
        await following.look()
        assert following.condition.storage_settings_version == 0


async def test_settings_that_could_not_be_read_are_read_again_without_a_wake_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings_watch, "READ_AGAIN_S", 0.01)
    following = Following()
    following.store.problem = StoreUnavailable("away")
    async with following.running():
        following.store.problem = None
        await eventually_async(lambda: _is_told(following, 0), within_s=5.0)


@pytest.mark.parametrize("problem", [StoreUnavailable("away"), PermissionDenied("not allowed")])
async def test_a_change_that_cannot_be_read_while_a_storage_is_checked_is_seen_after_it(
    monkeypatch: pytest.MonkeyPatch, problem: TidelogError
) -> None:
    monkeypatch.setattr(settings_watch, "READ_AGAIN_S", 0.01)
    monkeypatch.setattr(settings_watch, "POLL_S", 0.01)
    following = Following()
    following.store.put(STORAGE)
    silent = following.silent = asyncio.Event()
    async with following.running():
        following.store.put(STORAGE.replace("/backups", "/others"))
        following.store.problem = problem
        await following.look()
        silent.set()
        await settle()
        following.store.problem = None
        await eventually_async(lambda: _is_told(following, 2), within_s=5.0)


async def _is_told(following: Following, version: int) -> bool:
    return following.condition.storage_settings_version == version


@pytest.mark.parametrize(
    ("text", "priority"),
    [
        ("", None),
        ("backup: {priority: {h1:27017: 2.5}}", 2.5),
        ("backup: {priority: {other:27017: 2.5}}", 1.0),
    ],
    ids=["nobody named", "named", "another named"],
)
def test_priority_as_pbm_means_it(text: str, priority: float | None) -> None:
    assert priority_of("h1:27017", load_yaml(text)) == priority
