"""Which collections of the target may stay, as far as their indexes go."""

from __future__ import annotations

from typing import Any

import pytest

from agent.mongo.listing import Shape
from agent.operations.restore.keeping import is_same
from agent.replay.catalogue import Collection
from agent.replay.scope import Scope

UUID = b"0" * 16
ID_INDEX = {"v": 2, "key": {"_id": 1}, "name": "_id_"}


def stays(**changes: Any) -> bool:
    """Whether a collection stays that has one more index, the same as the backup has."""
    spec = {"v": 2, "key": {"a.b": 1}, "name": "i", **changes}
    indexes = {"_id_": ID_INDEX, "i": spec}
    collection = Collection(UUID, "db.c", Scope(), options={}, indexes=indexes)
    return is_same(collection, Shape("db.c", UUID, {}, (ID_INDEX, spec), is_building=False))


def test_an_index_that_takes_any_document_may_stay() -> None:
    assert stays()
    assert stays(key={"a": -1}, sparse=True)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 1},
        {"key": {"a.0": 1}},
        {"key": {"a.0.b": 1}},
        {"key": {"a": 1, "b": 1}},
        {"key": {"a": "text"}},
        {"unique": True},
        {"expireAfterSeconds": 1},
    ],
)
def test_one_that_may_refuse_or_delete_documents_may_not(change: dict[str, Any]) -> None:
    assert not stays(**change)
