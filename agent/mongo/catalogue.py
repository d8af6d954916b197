"""The catalogue of a replica set, exact at an OpTime.

`$listCatalog` (MongoDB 6.0) reads the storage engine's own catalogue, and at read concern snapshot
it answers as of that OpTime: dropped collections, old names, old options and old index lists
included. So the catalogue and the data of a backup belong to one moment, and replay needs no guess
about which command a listing had already seen. It also needs one round trip where `listIndexes`
needs one a collection. Where the server has it not enabled, `agent.mongo.listing` stands in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from bson.codec_options import CodecOptions, DatetimeConversion

from agent.errors import NodeUnavailable
from agent.mongo.clients import LONG_TIMEOUT_S
from agent.mongo.cursor import BATCH_TIMEOUT_S, at_snapshot, session_of
from agent.mongo.listing import is_refused, listed_at
from agent.mongo.node import Document, Node
from agent.mongo.translate import CommandFailed, translated
from agent.tasks import TaskGroup
from agent.wire.optime import OpTime

_DECODED: Final[CodecOptions[Document]] = CodecOptions(
    document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_MS
)
_SIZING_AT_ONCE: Final = 4
_ROWS: Final = 2_000
"""Of the catalogue in a reply. One with many indexes has 10 KB, and all of a reply is decoded."""


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """One collection as the server has it: BSON values, nothing left out but the UUID, which has
    its own field, and indexes that are still being built."""

    ns: str
    uuid: str
    options: Document
    indexes: tuple[Document, ...]


async def read_catalogue(node: Node, read_at: OpTime) -> list[CatalogueRow]:
    """All of `catalogue_rows` at once."""
    async with aclosing(catalogue_rows(node, read_at)) as rows:
        return [row async for row in rows]


async def catalogue_rows(node: Node, read_at: OpTime) -> AsyncGenerator[CatalogueRow, None]:
    """Every collection of the replica set (views are documents of `system.views`).

    Raises `NodeUnavailable`, `PermissionDenied`, `CommandFailed`, and where the server lists one by
    one `CatalogueMoved`.
    """
    try:
        async with aclosing(_told_at(node, read_at)) as rows:
            async for row in rows:
                yield row
    except CommandFailed as error:
        if not is_refused(error):
            raise
        for one in await listed_at(node, read_at):
            yield CatalogueRow(one.ns, one.uuid.hex(), one.options, one.indexes)


async def _told_at(node: Node, read_at: OpTime) -> AsyncGenerator[CatalogueRow, None]:
    command: Document = {
        "aggregate": 1,
        "pipeline": [{"$listCatalog": {}}, {"$match": {"type": "collection"}}],
        "cursor": {},
        "readConcern": at_snapshot(read_at),
    }
    async with session_of(node) as session:
        reply = await _bounded(node, command, session)
        for row in reply["cursor"]["firstBatch"]:
            yield _row(row)
        while cursor_id := reply["cursor"]["id"]:
            more = {"getMore": cursor_id, "collection": "$cmd.aggregate", "batchSize": _ROWS}
            reply = await _bounded(node, more, session)
            for row in reply["cursor"]["nextBatch"]:
                yield _row(row)


async def _bounded(node: Node, command: Document, session: Any) -> Document:
    try:
        async with asyncio.timeout(BATCH_TIMEOUT_S):
            with translated("listing the catalogue"):
                reply: Document = await node.command(
                    "admin", command, timeout_s=None, session=session, codec_options=_DECODED
                )
    except TimeoutError:
        raise NodeUnavailable(
            f"{node.host} did not list its catalogue within {BATCH_TIMEOUT_S:.0f} s"
        ) from None
    return reply


def _row(row: Document) -> CatalogueRow:
    described = row["md"]
    options = dict(described["options"])
    uuid = bytes(options.pop("uuid"))
    return CatalogueRow(
        ns=row["ns"],
        uuid=uuid.hex(),
        options=options,
        indexes=tuple(index["spec"] for index in described["indexes"] if index["ready"]),
    )


@dataclass(frozen=True, slots=True)
class Sizes:
    """Estimates, in bytes of BSON and documents."""

    bytes: int
    documents: int


async def total_sizes(node: Node, databases: Iterable[str]) -> Sizes:
    """What the databases hold together, for progress."""
    room = asyncio.Semaphore(_SIZING_AT_ONCE)
    found: list[Sizes] = []

    async def measure(database: str) -> None:
        async with room:
            with translated(f"measuring {database}"):
                stats = await node.command(database, {"dbStats": 1}, timeout_s=LONG_TIMEOUT_S)
        found.append(Sizes(int(stats["dataSize"]), int(stats["objects"])))

    async with TaskGroup() as group:
        for database in sorted(set(databases)):
            group.create_task(measure(database))
    return Sizes(sum(s.bytes for s in found), sum(s.documents for s in found))


async def collection_sizes(node: Node, ns: str) -> Sizes:
    """What one collection holds now; zero when it is gone."""
    database, _, collection = ns.partition(".")
    try:
        with translated(f"measuring {ns}"):
            stats = await node.command(database, {"collStats": collection})
    except CommandFailed:
        return Sizes(0, 0)
    return Sizes(int(stats.get("size", 0)), int(stats.get("count", 0)))
