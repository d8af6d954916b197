"""Inserting documents as they were stored.

Plain inserts are the fastest way in. They refuse a few documents that a server may hold all the
same (an `_id` that is an array, two `_id`s); those go through `applyOps`, which refuses nothing
that was ever stored.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, Final

import bson

from agent.errors import NodeUnavailable, RestoreFailed
from agent.mongo.apply.documents import RawDocument
from agent.mongo.apply.looking import LOOK_S, STATUS_NOT_KNOWN
from agent.mongo.apply.operations import apply_writes, is_unnamed_duplicate
from agent.mongo.node import Document, Node
from agent.mongo.translate import refused_write, translated

INSERT_TIMEOUT_S: Final = 100.0
_LOOKS: Final = 100
_DUPLICATE: Final = 11000
_NOT_STORABLE: Final = frozenset({2, 52, 53, 57})
_length: Final = struct.Struct("<i").pack


async def insert(
    node: Node,
    namespace: str,
    documents: list[RawDocument],
    *,
    is_ordered: bool = False,
    may_exist: bool = False,
    fence: RawDocument | None = None,
) -> None:
    """Insert a batch at w:1, past validators. With `may_exist`, documents whose `_id` is there are
    those very documents, inserted before an interruption.

    Raises `RestoreFailed` naming a document that is refused, `NodeUnavailable`.
    """
    looks = _LOOKS
    while documents:
        errors = await _insert(node, namespace, documents, is_ordered)
        stale = [error["index"] for error in errors if error["code"] == STATUS_NOT_KNOWN]
        end = len(documents)
        if stale and looks:
            # A shard's new primary has yet to see whether the collection is sharded. It has put
            # nothing in from there on, and looks now.
            looks -= 1
            await asyncio.sleep(LOOK_S)
            end = min(stale)
            errors = [error for error in errors if error["index"] < end]
        for error in errors:
            if not (may_exist and _is_there(error)):
                await _resolve(node, namespace, documents[error["index"]], error, fence)
        if errors and is_ordered:
            # An ordered insert ends at its first error.
            end = errors[-1]["index"] + 1
        documents = documents[end:]


async def _insert(
    node: Node, namespace: str, documents: list[RawDocument], is_ordered: bool
) -> list[dict[str, Any]]:
    database, _, collection = namespace.partition(".")
    command: Document = {
        "insert": collection,
        "documents": documents,
        "ordered": is_ordered,
        "bypassDocumentValidation": True,
        "writeConcern": {"w": 1},
    }
    with translated(f"loading {namespace}"):
        reply = await node.command(database, command, timeout_s=INSERT_TIMEOUT_S)
    errors: list[dict[str, Any]] = reply.get("writeErrors", [])
    return errors


def _said(error: dict[str, Any]) -> str:
    return str(error.get("errmsg", error["code"]))


def _is_there(error: dict[str, Any]) -> bool:
    return error["code"] == _DUPLICATE or is_unnamed_duplicate(_said(error))


async def _resolve(
    node: Node,
    namespace: str,
    document: RawDocument,
    error: dict[str, Any],
    fence: RawDocument | None,
) -> None:
    if error["code"] in _NOT_STORABLE:
        operations = [inserting(namespace, document.raw)]
        await apply_writes(node, operations, is_lenient=True, fence=fence)
        return
    refused = refused_write(f"loading {namespace}", error)
    if isinstance(refused, NodeUnavailable):
        raise refused
    raise RestoreFailed(f"{namespace} does not take a document of the backup: {_said(error)}")


def inserting(namespace: str, document: bytes) -> RawDocument:
    """A document as an insert of `applyOps`, which replaces the one with the same `_id`."""
    head = bson.encode({"op": "i", "ns": namespace})[4:-1] + b"\x03o\0"
    return RawDocument(_length(len(head) + len(document) + 5) + head + document + b"\0")
