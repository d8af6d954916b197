"""The sender of notices: one agent of the lead replica set, under a lease.

Every few seconds the holder reads the overview, works out what each webhook should know and was not
told, sends it, and notes that it was sent. It notes after the receiver has taken it: who takes over
in between sends it again, under the same id. A receiver that does not answer is tried again with
growing pauses for a day; the others do not wait for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from agent.clock import Clock, jittered
from agent.coordination.election import bid_delay_s, rank_leads
from agent.coordination.lease import HeldLease, Holder
from agent.coordination.recent_settings import SettingsSource
from agent.errors import ConfigError, Superseded, Transient
from agent.notify.delivery import Delivery
from agent.store.lease_store import LeaseStore
from agent.store.node_registry import NodeRegistry
from agent.store.notice_store import NoticeStore
from agent.tasks import TaskGroup
from agent.wire.leases import notify_scope
from agent.wire.notices import GIVE_UP_AFTER_S, Notice, notices
from agent.wire.notify_settings import WebhookSettings
from agent.wire.overview import Overview

EVERY_S: Final = 10.0
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 600.0
MOST_AT_ONCE: Final = 20
"""Notices to one webhook in one round; the rest follows in the next."""

log = structlog.stdlib.get_logger()


@dataclass
class _Patience:
    """When a webhook that did not answer is tried again."""

    not_before: float = 0.0
    pause_s: float = FIRST_PAUSE_S


@dataclass
class Notifier:
    """This agent's share; `run` is for the agent's task group."""

    node: str
    lead_replset: str
    cluster_id: str
    read: Callable[[], Awaitable[Overview]]
    settings: SettingsSource
    leases: LeaseStore
    holder: Holder
    nodes: NodeRegistry
    told: NoticeStore
    delivery: Delivery
    clock: Clock
    _patience: dict[str, _Patience] = field(default_factory=dict)

    async def run(self) -> None:
        """Send whenever it is this agent's turn, for ever."""
        while True:
            try:
                await self._take_turn()
            except (Superseded, Transient) as error:
                log.info("notify.interrupted", error=str(error))
            await self.clock.sleep(jittered(EVERY_S))

    async def _take_turn(self) -> None:
        settings, _ = await self.settings.read()
        if not settings.notify.webhooks:
            return
        live = [n for n in await self.nodes.live() if n.replset == self.lead_replset]
        order = rank_leads(live)
        if self.node not in order:
            return
        await self.clock.sleep(bid_delay_s(order.index(self.node)))
        lease = await self.leases.acquire(notify_scope(), self.node)
        if lease is None:
            return
        async with self.holder.hold(lease) as held, self.delivery:
            while await self._round(held):
                await self.clock.sleep(EVERY_S)

    async def _round(self, held: HeldLease) -> bool:
        """Tell every webhook what it should know; whether there is one."""
        overview = await self.read()
        webhooks = overview.settings.notify.webhooks
        async with TaskGroup() as group:
            for name, webhook in webhooks.items():
                group.create_task(self._tell(held, name, webhook, overview), name=f"tell {name}")
        return bool(webhooks)

    async def _tell(
        self, held: HeldLease, name: str, webhook: WebhookSettings, overview: Overview
    ) -> None:
        now = overview.now.T
        told = await self.told.read(name, now)
        wanted = [
            notice
            for notice in notices(overview, self.cluster_id, told.since)
            if notice.event in webhook.events
        ]
        known = {notice.id for notice in wanted}
        ids = [one for one in told.ids if one in known]
        left = [notice for notice in wanted if notice.id not in ids]
        patience = self._patience.setdefault(name, _Patience())
        sent = await self._send(held, name, webhook, left[:MOST_AT_ONCE], now, patience)
        held.check()
        after = told.model_copy(update={"epoch": held.epoch, "ids": (*ids, *sent)})
        if after != told:
            await self.told.save(after)

    async def _send(
        self,
        held: HeldLease,
        name: str,
        webhook: WebhookSettings,
        left: list[Notice],
        now: int,
        patience: _Patience,
    ) -> list[str]:
        """In order, up to the first that is not taken; answers what need not be sent again."""
        sent: list[str] = []
        for notice in left:
            if now - notice.at > GIVE_UP_AFTER_S:
                log.error("notify.given_up", webhook=name, event_of=notice.event, id=notice.id)
                sent.append(notice.id)
                continue
            if self.clock.monotonic() < patience.not_before:
                break
            held.check()
            try:
                await self.delivery.send(webhook, notice, now)
            except (Transient, ConfigError) as error:
                patience.not_before = self.clock.monotonic() + patience.pause_s
                log.warning(
                    "notify.failed",
                    webhook=name,
                    id=notice.id,
                    error=str(error),
                    pause_s=patience.pause_s,
                )
                patience.pause_s = min(2 * patience.pause_s, LONGEST_PAUSE_S)
                break
            patience.pause_s = FIRST_PAUSE_S
            sent.append(notice.id)
            log.info("notify.delivered", webhook=name, event_of=notice.event, id=notice.id)
        return sent
