"""From settings to a server, or to none where nobody asked for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from agent.clock import Clock
from agent.config import Config
from agent.coordination.heartbeat import Heartbeat
from agent.log import EventSink
from agent.mongo.node import Node
from agent.mongo.oplog import oplog_span
from agent.storage.observing import StorageCounters
from agent.storage.secrets import SecretReader
from agent.store.overview_reading import Sources, read_overview
from agent.web.model import Local, ReadModel
from agent.web.server import Address, WebServer


def web_server(
    config: Config,
    node: Node,
    cluster_id: str,
    sources: Sources,
    heartbeat: Heartbeat,
    storages: Mapping[str, StorageCounters],
    sink: EventSink,
    clock: Clock,
) -> WebServer | None:
    """What `listen` asks for."""
    if config.listen is None:
        return None
    local = Local(
        node=node.id,
        replset=node.replset,
        host=node.host,
        cluster_id=cluster_id,
        lead_replset=sources.control.replset,
        heartbeat=heartbeat,
        storages=storages,
        events=sink.counts,
        dropped_events=lambda: sink.dropped,
    )
    model = ReadModel(local, partial(read_overview, sources), partial(oplog_span, node), clock)
    host, port = config.listen_address()
    web = config.web
    address = Address(host, port, web.tls_certificate_file, web.tls_key_file)
    return WebServer(address, model, _token(config), clock)


def _token(config: Config) -> Callable[[], str | None]:
    """Reads the token as it is now: a file may have changed. Raises `ConfigError`."""
    web, reader = config.web, SecretReader()

    def token() -> str | None:
        if web.token_file is not None:
            return reader.filled(web.token_file)
        return web.token.get_secret_value() if web.token is not None else None

    return token
