"""What a dump tool asks of a server: its collections as clients see them, and their documents."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from bson import json_util
from bson.codec_options import DatetimeConversion
from bson.json_util import JSONMode, JSONOptions

from agent.mongo.cursor import EVERYTHING, raw_cursor, session_of
from agent.mongo.listing import ALL, all_rows
from agent.mongo.node import Document, Node
from agent.mongo.translate import translated

_CANONICAL: Final = JSONOptions(
    json_mode=JSONMode.CANONICAL, datetime_conversion=DatetimeConversion.DATETIME_MS
)


async def databases(node: Node) -> list[str]:
    """The names of all databases."""
    with translated("listing the databases"):
        reply = await node.command("admin", {"listDatabases": 1, "nameOnly": True})
    return sorted(str(row["name"]) for row in reply["databases"])


async def listed_collections(node: Node, database: str) -> list[Document]:
    """`listCollections`: `{name, type, options, info}`, types of BSON kept."""
    with translated(f"listing the collections of {database}"):
        return await _all(node, database, {"listCollections": 1, "cursor": ALL})


async def listed_indexes(node: Node, database: str, collection: str) -> list[Document]:
    """`listIndexes`."""
    with translated(f"listing the indexes of {database}.{collection}"):
        return await _all(node, database, {"listIndexes": collection, "cursor": ALL})


async def _all(node: Node, database: str, command: Document) -> list[Document]:
    async with session_of(node) as session:
        return await all_rows(node, database, command, session)


async def raw_documents(node: Node, database: str, collection: str) -> AsyncGenerator[bytes]:
    """The documents of a collection as they are stored, several of them a block."""
    command: Document = {"find": collection, "batchSize": EVERYTHING}
    label = f"{database}.{collection}"
    async with aclosing(raw_cursor(node, database, command, label)) as replies:
        async for reply in replies:
            if reply.count:
                yield bytes(reply.documents)


def canonical_json(document: Document) -> str:
    """Canonical Extended JSON v2, as the server's tools write it."""
    return str(json_util.dumps(document, json_options=_CANONICAL))
