"""Who is told what, and when again: the notifier over stores in memory and a clock of its own."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from agent.coordination.lease import HeldLease
from agent.errors import ConfigError, LeaseLost
from agent.notify.delivery import Delivery, NotTaken
from agent.notify.notifier import FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_AT_ONCE, Notifier
from agent.store.notice_store import NoticeStore
from agent.wire.leases import notify_scope
from agent.wire.notices import GIVE_UP_AFTER_S, Notice, Told
from agent.wire.notify_settings import WebhookSettings
from agent.wire.operations import Kind, State
from agent.wire.overview import Overview
from agent.wire.settings import from_mapping
from tests.support.manual_clock import ManualClock
from tests.support.overviews import CLUSTER, NOW_T, a_lease, an_operation, good

FAILED = an_operation(Kind.BACKUP, 660, state=State.FAILED)
"""It ended a minute ago."""


class MemoryTold:
    """As `NoticeStore`: what is not known yet is told from an hour ago on."""

    def __init__(self) -> None:
        self.saved: dict[str, Told] = {}

    async def read(self, webhook: str, now: int) -> Told:
        return self.saved.get(webhook, Told(id=webhook, since=now - 3600))

    async def save(self, told: Told) -> None:
        if self.saved.get(told.id, told).epoch > told.epoch:
            raise LeaseLost("somebody else sends notices now")
        self.saved[told.id] = told


@dataclass
class Mail:
    """As `Delivery`: refuses while there are errors for a webhook."""

    sent: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    errors: dict[str, list[Exception]] = field(default_factory=lambda: defaultdict(list))
    tries: int = 0

    async def send(self, webhook: WebhookSettings, notice: Notice, timestamp: int) -> None:
        self.tries += 1
        name = webhook.url.rpartition("/")[2]
        if self.errors[name]:
            raise self.errors[name].pop(0)
        self.sent[name].append(notice.id)


@dataclass
class Scene:
    """One notifier that holds the lease."""

    overview: Overview
    clock: ManualClock = field(default_factory=ManualClock)
    told: MemoryTold = field(default_factory=MemoryTold)
    mail: Mail = field(default_factory=Mail)

    def __post_init__(self) -> None:
        nothing = cast(Any, None)
        self.notifier = Notifier(
            node="one/a",
            lead_replset="one",
            cluster_id=CLUSTER,
            read=self.read,
            settings=nothing,
            leases=nothing,
            holder=nothing,
            nodes=nothing,
            told=cast(NoticeStore, self.told),
            delivery=cast(Delivery, self.mail),
            clock=self.clock,
        )

    async def read(self) -> Overview:
        return self.overview

    async def look(self, epoch: int = 3) -> bool:
        """One round, under a lease that was renewed just now."""
        lease = a_lease(notify_scope(), "one/a", epoch)
        return await self.notifier._round(HeldLease(lease, self.clock))


def webhooks(**events: str) -> Any:
    """Settings with webhooks by name, each for these events."""
    hooks = {
        name: {"url": f"https://example.com/{name}", "events": chosen}
        for name, chosen in events.items()
    }
    storage = {"type": "s3", "s3": {"bucket": "b"}}
    return from_mapping({"storage": storage, "notify": {"webhooks": hooks}})


def scene(*recent: Any, **events: str) -> Scene:
    chosen = webhooks(**(events or {"oncall": "failure"}))
    return Scene(good(recent=recent or (FAILED,), settings=chosen))


async def test_what_was_taken_is_not_told_again() -> None:
    one = scene()
    assert await one.look()
    assert await one.look()
    assert len(one.mail.sent["oncall"]) == one.mail.tries == 1


async def test_each_webhook_is_told_of_what_it_asked_for() -> None:
    done = an_operation(Kind.RESTORE, 700)
    one = scene(done, FAILED, oncall="failure", deadman="success", both="success,failure")
    await one.look()
    assert {name: len(ids) for name, ids in one.mail.sent.items()} == {
        "oncall": 1,
        "deadman": 1,
        "both": 2,
    }


async def test_without_webhooks_there_is_nothing_to_do() -> None:
    one = Scene(good(recent=(FAILED,), settings=from_mapping({})))
    assert not await one.look()
    assert one.mail.tries == 0


async def test_what_is_not_taken_is_sent_again_under_its_id_with_growing_pauses() -> None:
    one = scene()
    one.mail.errors["oncall"] = [NotTaken("no") for _ in range(12)]
    pause_s = FIRST_PAUSE_S
    for failures in range(1, 13):
        await one.look()
        assert one.mail.tries == failures
        one.clock.jump(pause_s - 0.1)
        await one.look()
        assert one.mail.tries == failures, "too early"
        one.clock.jump(0.2)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    await one.look()
    (sent,) = one.mail.sent["oncall"]
    assert sent == f"{CLUSTER}.{FAILED.id}.failed"


async def test_one_that_does_not_answer_holds_up_no_other() -> None:
    one = scene(FAILED, deaf="failure", oncall="failure")
    one.mail.errors["deaf"] = [NotTaken("no")]
    await one.look()
    assert (len(one.mail.sent["deaf"]), len(one.mail.sent["oncall"])) == (0, 1)


async def test_the_order_holds_when_one_is_not_taken() -> None:
    older, newer = (
        an_operation(Kind.BACKUP, ago, state=State.FAILED, _id=f"{ago:024x}") for ago in (900, 700)
    )
    one = scene(newer, older)
    one.mail.errors["oncall"] = [NotTaken("no")]
    await one.look()
    assert one.mail.sent["oncall"] == [], "the newer one waits for the older one"
    one.clock.jump(FIRST_PAUSE_S + 1)
    await one.look()
    assert one.mail.sent["oncall"] == [f"{CLUSTER}.{op.id}.failed" for op in (older, newer)]


async def test_a_secret_that_cannot_be_read_is_tried_again() -> None:
    one = scene()
    one.mail.errors["oncall"] = [ConfigError("the file /etc/secret cannot be read")]
    await one.look()
    one.clock.jump(FIRST_PAUSE_S + 1)
    await one.look()
    assert len(one.mail.sent["oncall"]) == 1


async def test_after_a_day_a_notice_is_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    one = scene()
    one.told.saved["oncall"] = Told(id="oncall", since=0)
    late = one.overview.now.T + int(GIVE_UP_AFTER_S)
    one.overview = good(
        recent=(FAILED,),
        settings=one.overview.settings,
        now=one.overview.now.model_copy(update={"T": late}),
        backups=(),
    )
    await one.look()
    await one.look()
    assert one.mail.tries == 0
    assert capsys.readouterr().out.count("notify.given_up") == 1


async def test_a_flood_is_told_in_portions() -> None:
    many = tuple(
        an_operation(Kind.BACKUP, 700, state=State.FAILED, _id=f"{n:024x}")
        for n in range(MOST_AT_ONCE + 5)
    )
    one = scene(*many)
    await one.look()
    assert len(one.mail.sent["oncall"]) == MOST_AT_ONCE
    await one.look()
    assert len(set(one.mail.sent["oncall"])) == len(many)


async def test_who_was_superseded_sends_and_notes_nothing_more() -> None:
    one = scene()
    await one.look(epoch=7)
    one.overview = good(
        recent=(an_operation(Kind.BACKUP, 640, state=State.FAILED),),
        settings=one.overview.settings,
    )
    with pytest.raises(BaseExceptionGroup) as raised:
        await one.look(epoch=6)
    assert raised.group_contains(LeaseLost)
    assert one.told.saved["oncall"].epoch == 7


async def test_a_lease_that_lapsed_stops_the_sending() -> None:
    one = scene()
    lease = HeldLease(a_lease(notify_scope(), "one/a"), one.clock)
    one.clock.jump(60)
    with pytest.raises(BaseExceptionGroup) as raised:
        await one.notifier._round(lease)
    assert raised.group_contains(LeaseLost)
    assert one.mail.tries == 0


async def test_what_is_remembered_does_not_grow() -> None:
    one = scene()
    for number in range(30):
        one.overview = good(
            recent=(an_operation(Kind.BACKUP, 660, state=State.FAILED, _id=f"{number:024x}"),),
            settings=one.overview.settings,
        )
        await one.look()
        await asyncio.sleep(0)
    assert len(one.mail.sent["oncall"]) == 30
    assert len(one.told.saved["oncall"].ids) == 1
    assert one.told.saved["oncall"].since == NOW_T - 3600
