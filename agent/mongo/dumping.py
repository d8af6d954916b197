"""What a dump tool asks of a server: its collections as clients see them, and their documents."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.json_util import JSONMode, JSONOptions

from agent.mongo.cursor import EVERYTHING, raw_cursor, session_of
from agent.mongo.listing import LISTING_TIMEOUT_S
from agent.mongo.node import Document, Node
from agent.mongo.translate import translated

_AS_IT_IS: Final[CodecOptions[Document]] = CodecOptions(
    document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_MS
)
_CANONICAL: Final = JSONOptions(
    json_mode=JSONMode.CANONICAL, datetime_conversion=DatetimeConversion.DATETIME_MS
)
_ALL: Final = {"batchSize": 10_000_000}


async def databases(node: Node) -> list[str]:
    """The names of all databases."""
    with translated("listing the databases"):
        reply = await node.command("admin", {"listDatabases": 1, "nameOnly": True})
    return sorted(str(row["name"]) for row in reply["databases"])


async def listed_collections(node: Node, database: str) -> list[Document]:
    """`listCollections`: `{name, type, options, info}`, types of BSON kept."""
    with translated(f"listing the collections of {database}"):
        return await _all(node, database, {"listCollections": 1, "cursor": _ALL})


async def listed_indexes(node: Node, database: str, collection: str) -> list[Document]:
    """`listIndexes`."""
    with translated(f"listing the indexes of {database}.{collection}"):
        return await _all(node, database, {"listIndexes": collection, "cursor": _ALL})


async def _all(node: Node, database: str, command: Document) -> list[Document]:
    """All rows of a listing, in one session: the server gives the rest of a cursor to no other, and
    forgets with the session what was left open."""
    rows: list[Document] = []
    async with session_of(node) as session:
        while True:
            reply: Any = await node.command(
                database,
                command,
                timeout_s=LISTING_TIMEOUT_S,
                session=session,
                codec_options=_AS_IT_IS,
            )
            cursor = reply["cursor"]
            rows += cursor.get("firstBatch", ()) or cursor.get("nextBatch", ())
            if not cursor["id"]:
                return rows
            name = str(cursor["ns"]).partition(".")[2]
            command = {"getMore": cursor["id"], "collection": name}


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
