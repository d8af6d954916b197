"""How many documents there are: by what the server has noted, or by reading them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from agent.errors import PermissionDenied
from agent.mongo.clients import LONG_TIMEOUT_S
from agent.mongo.node import Document, Node
from agent.mongo.translate import CommandFailed, translated
from agent.wire.namespaces import split

NOTED_TIMEOUT_S: Final = 100.0
"""However large collections are: what is noted is read at once, and only locks are waited for."""
_COUNTED_TOGETHER: Final = 50


async def count(node: Node, namespace: str) -> int:
    """Documents in a collection, counted by the server's metadata; 0 when it is not there."""
    database, collection = split(namespace)
    with translated(f"counting {namespace}"):
        reply = await node.command(database, {"count": collection}, timeout_s=NOTED_TIMEOUT_S)
    return int(reply["n"])


async def counts(node: Node, namespaces: Iterable[str]) -> dict[str, int]:
    """The same of many collections: many in one command, which takes a tenth of the time."""
    names: dict[str, list[str]] = defaultdict(list)
    for namespace in namespaces:
        names[split(namespace)[0]].append(split(namespace)[1])
    found: dict[str, int] = {}
    for database, each in names.items():
        for first in range(0, len(each), _COUNTED_TOGETHER):
            together = each[first : first + _COUNTED_TOGETHER]
            found |= await _counted(node, database, together)
    return found


async def _counted(node: Node, database: str, names: list[str]) -> dict[str, int]:
    counting: list[Document] = [
        {"$collStats": {"count": {}}},
        {"$project": {"_id": 0, "ns": 1, "count": 1}},
    ]
    others = [{"$unionWith": {"coll": name, "pipeline": counting}} for name in names[1:]]
    command: Document = {
        "aggregate": names[0],
        "pipeline": [*counting, *others],
        "cursor": {"batchSize": len(names) + 1},
    }
    try:
        with translated(f"counting {len(names)} collections of {database}"):
            reply = await node.command(database, command, timeout_s=NOTED_TIMEOUT_S)
    except (CommandFailed, PermissionDenied):
        # One of them is not there, or may only be counted by its own.
        return {f"{database}.{name}": await count(node, f"{database}.{name}") for name in names}
    return {row["ns"]: int(row["count"]) for row in reply["cursor"]["firstBatch"]}


async def count_exactly(node: Node, namespace: str) -> int:
    """The same by reading every document: after a crash of the server its metadata may be off, and
    stay so as long as the collection does. Takes as long as there are documents; buckets of time
    series are counted as such, under their own name."""
    database, collection = split(namespace)
    command: Document = {
        "aggregate": collection,
        "pipeline": [{"$group": {"_id": None, "n": {"$sum": 1}}}],
        "cursor": {},
        "readConcern": {"level": "local"},
    }
    with translated(f"counting {namespace}"):
        reply = await node.command(database, command, timeout_s=LONG_TIMEOUT_S)
    return sum(int(row["n"]) for row in reply["cursor"]["firstBatch"])
