"""What a shard does not own, by the table of ranges.

The ranges of a sharded collection cover all values of its key without a hole or an overlap. Each
has one owner; documents of it on any other shard are orphans: left behind by a move that is over,
or brought by one that has not come to its end. Nobody ever reads them, and whoever restores them
restores what is not there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from bson import MaxKey, MinKey

Document = Mapping[str, Any]


async def foreign_ranges(
    chunks: AsyncIterator[Document], shard: str
) -> AsyncIterator[tuple[Document, Document]]:
    """`[min, max)` of what others own, neighbours in one, from `chunks` in their order."""
    low: Document | None = None
    high: Document = {}
    async for chunk in chunks:
        if chunk["shard"] != shard:
            low = chunk["min"] if low is None else low
            high = chunk["max"]
        elif low is not None:
            yield low, high
            low = None
    if low is not None:
        yield low, high


def supporting(key: Document, indexes: Sequence[Document]) -> Document | None:
    """The shortest of a collection's indexes that begins with a shard key and holds every
    document, as its key pattern; None where there is none."""
    wanted = list(key.items())
    found = [
        dict(index["key"])
        for index in indexes
        if list(index["key"].items())[: len(wanted)] == wanted
        and not index.get("sparse")
        and "partialFilterExpression" not in index
        and "collation" not in index
    ]
    return min(found, key=len, default=None)


def bound(values: Document, pattern: Document) -> dict[str, Any]:
    """A bound of the shard key as one of a longer index: before all that begin with it."""
    return {
        name: values[name] if name in values else _before(direction)
        for name, direction in pattern.items()
    }


def _before(direction: Any) -> MinKey | MaxKey:
    is_descending = isinstance(direction, int | float) and direction < 0
    return MaxKey() if is_descending else MinKey()
