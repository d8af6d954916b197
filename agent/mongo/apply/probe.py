"""Whether the agent's user may do what a restore does, tried out before anything is dropped.

Privileges cannot be computed reliably from role documents, so one collection of our own is created,
written, indexed and dropped, in the ways a restore does these things.
"""

from __future__ import annotations

from typing import Final

import bson
from bson import Binary

from agent.mongo.apply.documents import RawDocument
from agent.mongo.apply.operations import apply_commands, apply_writes
from agent.mongo.node import Document, Node
from agent.mongo.translate import translated
from agent.wire.namespaces import TEMPORARY, split

_NAME: Final = f"{TEMPORARY}Probe"


async def probe_rights(node: Node, database: str, uuid: bytes) -> None:
    """Do a little of everything in `database`, and leave nothing. Raises `PermissionDenied`."""
    ns = f"{database}.{_NAME}"
    ui = Binary(uuid, 4)
    create = {"create": _NAME, "idIndex": {"v": 2, "key": {"_id": 1}, "name": "_id_"}}
    drop: Document = {"op": "c", "ns": f"{database}.$cmd", "ui": ui, "o": {"drop": _NAME}}
    await apply_commands(node, [{"op": "c", "ns": f"{database}.$cmd", "ui": ui, "o": create}])
    try:
        await _write(node, ns)
        await _index(node, ns)
    finally:
        await apply_commands(node, [drop])


async def _write(node: Node, ns: str) -> None:
    operations: list[Document] = [
        {"op": "i", "ns": ns, "o": {"_id": 1}},
        {"op": "u", "ns": ns, "o": {"$v": 2, "diff": {"i": {"a": 1}}}, "o2": {"_id": 1}},
        {"op": "d", "ns": ns, "o": {"_id": 1}},
    ]
    await apply_writes(
        node, [RawDocument(bson.encode(operation)) for operation in operations], is_lenient=True
    )
    database, collection = split(ns)
    with translated("trying an insert"):
        await node.command(
            database,
            {"insert": collection, "documents": [{"_id": 2}], "bypassDocumentValidation": True},
        )


async def _index(node: Node, ns: str) -> None:
    database, collection = split(ns)
    with translated("trying an index build"):
        await node.command(
            database,
            {"createIndexes": collection, "indexes": [{"key": {"a": 1}, "name": "a_1"}]},
        )
