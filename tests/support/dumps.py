"""A strict reader of `mongodump` directories, and a small loader in place of `mongorestore`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import bson
from bson import json_util
from pymongo import MongoClient

_KEYS: Final = {"options", "indexes", "uuid", "collectionName", "type"}
_BUCKETS: Final = "system.buckets."


@dataclass(frozen=True)
class Dumped:
    """One collection of a dump."""

    database: str
    name: str
    metadata: dict[str, Any]
    documents: list[dict[str, Any]]


def read_dump(directory: Path) -> list[Dumped]:
    """Every collection; fails on whatever the form does not allow."""
    found = []
    seen = set()
    for path in sorted(directory.glob("*/*.metadata.json")):
        text = path.read_text("utf-8")
        metadata = json_util.loads(text)
        assert json_util.dumps(metadata, json_options=json_util.CANONICAL_JSON_OPTIONS) == text, (
            f"{path} is not canonical Extended JSON"
        )
        assert set(metadata) <= _KEYS, path
        name = unquote(path.name.removesuffix(".metadata.json"))
        assert metadata["collectionName"] == name
        assert metadata["type"] in ("collection", "view", "timeseries")
        data = path.parent / path.name.replace(".metadata.json", ".bson")
        if metadata["type"] == "timeseries":
            data = path.parent / f"{_BUCKETS}{data.name}"
        assert data.exists() == (metadata["type"] != "view"), data
        if metadata["type"] == "collection" and not name.startswith("system."):
            assert len(bytes.fromhex(metadata["uuid"])) == 16
        for index in metadata["indexes"]:
            assert {"v", "key", "name"} <= set(index), index
        seen |= {path, data}
        documents = list(_documents(data)) if data.exists() else []
        found.append(Dumped(path.parent.name, name, metadata, documents))
    strangers = {path for path in directory.rglob("*") if path.is_file()} - seen
    assert not strangers, f"nothing says what these are: {strangers}"
    return found


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    data = path.read_bytes()
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<i", data, at)
        assert 5 <= length <= len(data) - at, f"{path} is cut at byte {at}"
        assert data[at + length - 1] == 0, f"{path}: no document ends at byte {at + length}"
        yield bson.decode(data[at : at + length])
        at += length


def load_dump(found: list[Dumped], client: MongoClient[dict[str, Any]]) -> None:
    """Put data, options, indexes and views of all databases but `admin` into a server."""
    order = ("collection", "timeseries", "view")
    for one in sorted(found, key=lambda one: order.index(one.metadata["type"])):
        if one.database == "admin":
            continue
        database = client[one.database]
        database.command({"create": one.name, **one.metadata["options"]})
        if one.documents:
            is_series = one.metadata["type"] == "timeseries"
            name = f"{_BUCKETS}{one.name}" if is_series else one.name
            database[name].insert_many(one.documents)
        extra = [index for index in one.metadata["indexes"] if index["name"] != "_id_"]
        extra = [index for index in extra if not index.get("clustered")]
        if extra:
            database.command({"createIndexes": one.name, "indexes": extra})
