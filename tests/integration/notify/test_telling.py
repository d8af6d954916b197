"""Agents tell a real receiver what is in the control database: once, in order, whoever dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from agent.clock import SystemClock
from agent.coordination.lease import Holder
from agent.notify import notifier as module
from agent.notify.assembly import notifier
from agent.store.connection import open_control
from agent.store.overview_reading import ControlSources
from agent.wire.operations import Kind
from agent.wire.optime import OpTime
from tests.integration.ctl.actor import Actor, open_actor
from tests.support.ctl import Ctl
from tests.support.eventually import eventually_async
from tests.support.mongod import ReplicaSet
from tests.support.receiver import Receiver, receiving
from tests.unit.ctl.world import backup

KEY = "a key that nobody is told"


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = module._Patience
    monkeypatch.setattr(module, "EVERY_S", 0.1)
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(module, "_Patience", lambda: impatient(pause_s=0.1))


@pytest_asyncio.fixture
async def actor(one_node: ReplicaSet) -> AsyncIterator[Actor]:
    async with open_actor(one_node.uri(), one_node.nodes[0].host) as found:
        await found.beat()
        yield found


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


@pytest.fixture
def ctl(one_node: ReplicaSet, receiver: Receiver, tmp_path: Path) -> Ctl:
    secret = tmp_path / "webhook-secret"
    secret.write_text(KEY)
    found = Ctl(one_node.uri())
    found.configure_filesystem(tmp_path)
    hook = "notify.webhooks.oncall"
    settings = (
        f"{hook}.url={receiver.url}",
        f"{hook}.secret={{file: {secret}}}",
        f"{hook}.events=success,failure",
    )
    found.ok("config", *(part for one in settings for part in ("--set", one)))
    return found


@asynccontextmanager
async def telling(uri: str, actor: Actor) -> AsyncIterator[None]:
    """An agent's notifier, for as long as the body; then it is killed: nothing is given back."""
    control = await open_control(uri, app_name="tests")
    try:
        sources = ControlSources.over(control)
        holder = Holder(sources.leases, SystemClock())
        one = notifier(actor.id, "c1", sources, sources.settings, holder, SystemClock())
        task = asyncio.ensure_future(one.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    finally:
        await control.aclose()


async def _heard(receiver: Receiver, count: int) -> None:
    await eventually_async(lambda: _is(len(receiver.received) >= count), 20)


async def _is(found: bool) -> bool:
    return found


async def _failed(actor: Actor) -> str:
    operation = await actor.operations.submit(Kind.BACKUP, {}, requested_by="tests")
    operation = await actor.lead(operation)
    await actor.fail(operation, "StorageUnavailable", "the storage does not answer")
    return operation.id


async def test_failure_then_success_is_told_signed_in_order_and_once(
    one_node: ReplicaSet, actor: Actor, ctl: Ctl, receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    receiver.statuses = [500, 503]
    async with telling(one_node.uri(), actor):
        await asyncio.sleep(1.2)  # told is what ends after the webhook was seen first
        failed = await _failed(actor)
        await asyncio.sleep(1.1)  # what ends within one second has no order
        operation = await actor.operations.submit(
            Kind.BACKUP, {}, requested_by="tests", name="2026-01-01T00:00:00Z"
        )
        await actor.publish(await actor.lead(operation))
        await _heard(receiver, 4)
    tries = [got.id for got in receiver.received]
    assert tries == [f"c1.{failed}.failed"] * 3 + [f"c1.{operation.id}.done"]
    assert all(got.is_signed_with(KEY.encode()) for got in receiver.received)
    assert len({got.body for got in receiver.received[:3]}) == 1, "a repetition is the same"
    told = receiver.received[2].value["data"]
    assert "the storage does not answer" in told["text"]
    assert told["details"]["op_id"] == failed
    shown = await asyncio.to_thread(ctl.run, "config", "--list")
    assert KEY not in capsys.readouterr().out + str(shown) + str(tries)


async def test_another_agent_goes_on_and_says_nothing_twice(
    one_node: ReplicaSet, actor: Actor, ctl: Ctl, receiver: Receiver
) -> None:
    async with telling(one_node.uri(), actor):
        await asyncio.sleep(1.2)
        first = await _failed(actor)
        await _heard(receiver, 1)
        await asyncio.sleep(0.3)
    second = await _failed(actor)
    async with telling(one_node.uri(), actor):
        await _heard(receiver, 2)
        await asyncio.sleep(0.5)
    assert [got.id for got in receiver.received] == [f"c1.{op}.failed" for op in (first, second)]


async def test_a_backup_that_never_came_is_told_again_and_again_until_one_does(
    one_node: ReplicaSet, actor: Actor, ctl: Ctl, receiver: Receiver
) -> None:
    chosen = ("notify.maxAge=1s", "notify.webhooks.oncall.events=absence")
    await asyncio.to_thread(ctl.ok, "config", *(part for one in chosen for part in ("--set", one)))
    async with telling(one_node.uri(), actor):
        await _heard(receiver, 2)
        assert len({got.id for got in receiver.received}) == len(receiver.received)
        assert {got.value["type"] for got in receiver.received} == {"tidelog.absence"}
        assert "no full backup for" in receiver.received[0].value["data"]["text"]
        until = OpTime(T=receiver.received[-1].value["timestamp"] + 600, I=1)
        await actor.catalog.publish_backup(
            backup("2026-01-01T00:00:00Z").model_copy(update={"last_write": until})
        )
        await asyncio.sleep(1.5)
        before = len(receiver.received)
        await asyncio.sleep(1.5)
        assert len(receiver.received) == before
