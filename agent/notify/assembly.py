"""The notifier over an open control database."""

from __future__ import annotations

from functools import partial

from agent.clock import Clock
from agent.coordination.lease import Holder
from agent.coordination.recent_settings import SettingsSource
from agent.notify.delivery import Delivery
from agent.notify.notifier import Notifier
from agent.storage.secrets import SecretReader
from agent.store.notice_store import NoticeStore
from agent.store.overview_reading import ControlSources, read_overview


def notifier(
    node: str,
    cluster_id: str,
    sources: ControlSources,
    settings: SettingsSource,
    holder: Holder,
    clock: Clock,
) -> Notifier:
    """This agent's share in telling webhooks."""
    return Notifier(
        node=node,
        lead_replset=sources.control.replset,
        cluster_id=cluster_id,
        read=partial(read_overview, sources),
        settings=settings,
        leases=sources.leases,
        holder=holder,
        nodes=sources.nodes,
        told=NoticeStore(sources.control),
        delivery=Delivery(SecretReader().text),
        clock=clock,
    )
