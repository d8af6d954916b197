"""What has to be written to a small collection that may hold something already."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import bson
import pytest
from bson import Int64
from hypothesis import given
from hypothesis import strategies as st

from agent.operations.restore import mending
from agent.operations.restore.mending import HELD_BYTES, Small, difference, identity, mend
from agent.replay.catalogue import Collection
from agent.replay.scope import Scope

ROWS = st.dictionaries(st.integers(0, 9), st.integers(0, 2))


def encoded(rows: Mapping[Any, Any]) -> list[bytes]:
    return [bson.encode({"_id": key, "value": value}) for key, value in rows.items()]


@given(ROWS, ROWS)
def test_deleting_and_inserting_what_differs_makes_what_was_wanted(
    wanted: dict[int, int], held: dict[int, int]
) -> None:
    extra, missing = difference(b"".join(encoded(wanted)), b"".join(encoded(held)))
    left = set(encoded(held)) - set(extra)
    assert left.isdisjoint(missing)
    assert sorted(left | set(missing)) == sorted(encoded(wanted))
    # What is left never has the `_id` of what is put in.
    assert {identity(each) for each in left}.isdisjoint(map(identity, missing))


def test_equal_numbers_of_other_types_are_other_documents() -> None:
    wanted, held = bson.encode({"_id": 1}), bson.encode({"_id": 1.0})
    assert difference(wanted, held) == ([held], [wanted])


def test_an_id_is_deleted_by_its_very_value() -> None:
    for value in (1, 1.0, Int64(1), "a", {"a": [1, 2]}, None, bson.ObjectId()):
        assert bson.decode(identity(bson.encode({"a": 0, "_id": value}))) == {"_id": value}


async def test_little_is_kept_in_memory_of_one_that_has_grown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = {n: bson.encode({"_id": n, "text": "x" * 1_000}) for n in range(5_000)}
    wanted = [rows[7], rows[4_000], bson.encode({"_id": "new"})]
    held, most = dict(rows), 0

    @asynccontextmanager
    async def batches(*_: Any) -> AsyncIterator[AsyncIterator[Any]]:
        async def each() -> AsyncIterator[Any]:
            nonlocal most
            unseen = list(rows)
            while unseen:
                some, unseen = unseen[:300], unseen[300:]
                most = max(most, len(held) - len(unseen))
                yield SimpleNamespace(documents=b"".join(held[n] for n in some))

        yield each()

    async def none_whole(_node: Any, finds: list[Any], **_: Any) -> list[None]:
        return [None] * len(finds)

    async def apply(operations: list[Any], *, is_lenient: bool) -> None:
        for one in (bson.decode(operation.raw) for operation in operations):
            if one["op"] == "d":
                del held[one["o"]["_id"]]
            else:
                held[one["o"]["_id"]] = bson.encode(one["o"])

    monkeypatch.setattr(mending, "raw_batches", batches)
    monkeypatch.setattr(mending, "read_whole_heads", none_whole)
    collection = Collection(b"0" * 16, "db.c", Scope(), options={}, indexes={})
    job: Any = SimpleNamespace(node=None, apply=apply)
    await mend(job, [Small(collection, b"".join(wanted))], may_hold=True)
    assert sorted(held.values()) == sorted(wanted)
    assert most < 2 * HELD_BYTES // 1_000 + 300
