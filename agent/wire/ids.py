"""Names: operations, nodes, backups."""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import NewType

OperationId = NewType("OperationId", str)
"""24 hexadecimal characters."""

NodeId = NewType("NodeId", str)
"""`<replset>/<host>:<port>`, the host as the replica set knows it."""

BackupName = NewType("BackupName", str)
"""The server's time of the request, `2026-11-22T03:08:36Z`, with `-2`, … where two share one."""

ReplsetName = NewType("ReplsetName", str)


def new_operation_id() -> OperationId:
    """Random: two commands in one second are two, whatever the clocks say."""
    return OperationId(secrets.token_hex(12))


def node_id(replset: str, host: str) -> NodeId:
    """The identity of the agent that serves `host`."""
    return NodeId(f"{replset}/{host}")


def replset_of(node: NodeId) -> ReplsetName:
    """The replica set a node belongs to."""
    return ReplsetName(node.partition("/")[0])


def name_for(requested_at: datetime, attempt: int = 1) -> BackupName:
    """The name of a backup or restore requested at that server time; `attempt` counts those that
    found the name before it taken."""
    base = requested_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return BackupName(base if attempt == 1 else f"{base}-{attempt}")


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def is_backup_name(text: str) -> bool:
    """Whether a text can name a backup (it becomes part of object keys)."""
    return _NAME.fullmatch(text) is not None
