"""Repositories of every released format stay readable, by us and by whoever reads the document."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Regex
from bson.codec_options import CodecOptions, DatetimeConversion

from agent.archive.framing import Frame, assemble, raw_frame
from agent.archive.layout import journal_prefix, slice_span_of
from agent.archive.objects import fetch_framed
from agent.operations.backup.journal import read_journal
from agent.operations.deletion import delete_backup
from agent.operations.inventory import published_names, read_backup, read_manifest
from agent.operations.repository import read_marker
from agent.operations.restore.state import Stage, State
from agent.storage.base import get_bytes
from agent.storage.memory import MemoryObjects, MemoryStorage
from tests.unit.archive.foreign_reader import ForeignReader
from tests.unit.archive.stored_documents import stored_documents

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/fixtures/golden-v1"
REPOSITORY = GOLDEN / "repository"
PUBLISHED, UNFINISHED = "2026-11-22T03:08:36Z", "2026-11-22T04:00:00Z"
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_bytes())
FORMAT = (ROOT / "docs/format.md").read_text()


def _digest(found: list[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(found))).hexdigest()


async def _repository() -> MemoryStorage:
    """The fixture, in memory, so that nothing can happen to it."""
    objects = MemoryObjects()
    for path in sorted(REPOSITORY.rglob("*")):
        if path.is_file():
            objects.bodies[path.relative_to(REPOSITORY).as_posix()] = path.read_bytes()
    objects.keys = sorted(objects.bodies)
    return await MemoryStorage.open(objects)


def test_the_fixture_is_small() -> None:
    files = [path for path in GOLDEN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000


async def test_the_product_reads_it() -> None:
    storage = await _repository()
    marker = await read_marker(storage)
    assert marker is not None
    assert marker.format_version == 1
    assert await published_names(storage) == [PUBLISHED]
    backup = await read_backup(storage, PUBLISHED)
    assert backup is not None
    (part,) = backup.replsets
    manifest = await read_manifest(storage, part.manifest_key, part.manifest_sha256)
    found = await stored_documents(storage, manifest)
    entries = {entry.uuid: entry for entry in manifest.catalogue}
    assert {entry.ns for entry in entries.values()} == set(EXPECTED)
    for ns, expected in EXPECTED.items():
        assert len(found.get(expected["uuid"], [])) == expected["count"], ns
        assert _digest(found.get(expected["uuid"], [])) == expected["sha256"], ns
        names = [spec["name"] for spec in entries[expected["uuid"]].bson_indexes()]
        if ns != "shop.system.views":
            assert sorted(names) == sorted(expected["indexes"]), ns
    for ref in manifest.slices:
        await fetch_framed(storage, ref.key, size_bytes=ref.size_bytes, sha256=ref.sha256)
        assert slice_span_of(ref.key) == (ref.start, ref.end)


async def test_types_of_options_and_indexes_are_those_of_the_server() -> None:
    storage = await _repository()
    backup = await read_backup(storage, PUBLISHED)
    assert backup is not None
    manifest = await read_manifest(storage, backup.replsets[0].manifest_key)
    entries = {entry.ns: entry for entry in manifest.catalogue}
    assert entries["shop.guarded"].bson_options()["validator"] == {
        "name": {"$regex": "^a", "$options": "i"}
    }
    assert entries["shop.ring"].is_capped
    assert entries["shop.clustered"].is_clustered
    assert entries["shop.system.buckets.weather"].is_clustered
    text_n = next(s for s in entries["shop.large"].bson_indexes() if s["name"] == "text_n")
    assert bson.encode(text_n) == bson.encode(
        {"v": 2, "key": {"text": 1, "n": -1}, "name": "text_n", "sparse": True}
    )


async def test_an_unfinished_backup_is_gone_on_from_and_can_be_deleted() -> None:
    storage = await _repository()
    seen = await read_journal(storage, UNFINISHED, "rs0")
    assert seen.begun is not None
    assert {entry.ns for entry in seen.begun.catalogue} > {"shop.large", "shop.renamed"}
    assert seen.units
    assert [key for key in storage.objects.keys if journal_prefix(UNFINISHED, "rs0") in key]
    await delete_backup(storage, UNFINISHED)
    await delete_backup(storage, PUBLISHED)
    left = [key for key in storage.objects.keys if not key.startswith("chunks/")]
    assert [key.partition("/")[0] for key in left] == ["restores", "tidelog.json"]


async def test_the_record_of_a_restore_is_read() -> None:
    storage = await _repository()
    (key,) = [key for key in storage.objects.keys if key.startswith("restores/")]
    assert State.model_validate_json(await get_bytes(storage, key)).stage is Stage.LOADED


def test_a_reader_that_knows_the_document_alone_reads_it() -> None:
    reader = ForeignReader(REPOSITORY)
    assert reader.names() == [PUBLISHED]
    (part,) = reader.backup(PUBLISHED)["replsets"]
    manifest = reader.manifest(part)
    found = reader.collections(manifest)
    assert set(found) == set(EXPECTED)
    for ns, expected in EXPECTED.items():
        assert len(found[ns]) == expected["count"], ns
        assert _digest(found[ns]) == expected["sha256"], ns
        shown = [base64.b64encode(raw).decode() for raw in sorted(found[ns])]
        assert shown[: len(expected["documents"])] == expected["documents"], ns
    assert len(reader.ranges(manifest, EXPECTED["shop.large"]["uuid"])) > 3
    assert [bson.decode(raw)["_id"] for raw in found["shop.ring"]] == [3, 1, 2]


def test_the_span_is_in_the_slices() -> None:
    reader = ForeignReader(REPOSITORY)
    manifest = reader.manifest(reader.backup(PUBLISHED)["replsets"][0])
    entries = [bson.decode(raw) for raw in reader.oplog(manifest)]
    commands = [next(iter(entry["o"])) for entry in entries if entry["op"] == "c"]
    assert commands == ["renameCollection", "drop", "applyOps"]
    assert [entry["op"] for entry in entries if entry["ns"] == "shop.large"] == ["u", "d"]
    assert manifest["slices"][0]["commands"] == sorted(commands)


def test_values_of_every_type_are_in_it() -> None:
    reader = ForeignReader(REPOSITORY)
    manifest = reader.manifest(reader.backup(PUBLISHED)["replsets"][0])
    lenient = CodecOptions[dict[str, Any]](datetime_conversion=DatetimeConversion.DATETIME_AUTO)
    mixed = [bson.decode(raw, lenient) for raw in reader.collections(manifest)["shop.mixed"]]
    assert len({type(document["_id"]) for document in mixed}) >= 12
    assert all(document["re"] == Regex("^a", 2) for document in mixed)


def _block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", FORMAT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_of_the_document_is_what_is_written() -> None:
    header = json.loads(_block("json"))
    dump = [line.split("  ", 1) for line in _block("hex").splitlines()]
    data = bytes.fromhex("".join(content for _, content in dump))
    assert [int(at, 16) for at, _ in dump] == list(range(0, len(data), 16))
    assert f"The object, {len(data)} bytes" in FORMAT
    plain = bson.encode({"_id": 1, "tide": "ebb"})
    del header["frames"]
    assert b"".join(assemble(header, [Frame(raw_frame(plain), len(plain))])) == data
    assert data[0xFF:0x103] == bytes.fromhex("28b52ffd")


@pytest.mark.parametrize(
    "name",
    [
        *("repository_id", "cluster_id", "schema_version", "op_id", "manifest_sha256"),
        *("first_write", "last_write", "read_end", "catalogue_at", "dropped", "is_fuzzy"),
        *("previous_sha256", "start_term", "accepted", "begun", "units", "gone", "sequence"),
    ],
)
def test_the_document_explains_the_field(name: str) -> None:
    assert f"`{name}`" in FORMAT


async def test_the_document_names_every_field_that_is_stored() -> None:
    storage = await _repository()
    backup = await read_backup(storage, PUBLISHED)
    assert backup is not None
    manifest = await read_manifest(storage, backup.replsets[0].manifest_key)
    stored: set[str] = {*backup.to_json(), *backup.replsets[0].to_json(), *manifest.to_json()}
    for record in (manifest.catalogue[0], manifest.objects[0], manifest.slices[0]):
        stored |= {*record.to_json()}
    stored |= {name for s in manifest.objects[0].segments for name in s.to_json()}
    missing = {name for name in stored if not re.search(rf"`{re.escape(name)}`", FORMAT)}
    assert missing == set()
