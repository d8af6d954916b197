"""Catalogue changes at every moment of a snapshot: it completes, exact, and nothing is lost.

Moments are the commands that the reader sends: a change happens just before the n-th of a kind, so
it meets the reader with its plan made, its cursor open, or its next range ahead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import bson
import pytest
from bson import Binary
from pymongo import MongoClient

from agent.errors import IntegrityError, NodeUnavailable
from agent.mongo.cursor import CollectionGone
from agent.mongo.node import Node
from agent.operations.backup.reading import Reader
from agent.operations.backup.snapshot import SnapshotOutcome
from agent.storage.memory import MemoryStorage
from tests.support.mongod import ReplicaSet
from tests.support.snapshots import contents, open_node, oplog_of, parts_of, small_units, take

Client = MongoClient[dict[str, Any]]
Moment = Callable[[dict[str, Any]], bool]
DOCUMENTS = 600
UNIT_BYTES = 20 << 10
IDS = list(range(DOCUMENTS))


def _seed(client: Client) -> None:
    db = client["db"]
    made = [{"_id": n, "text": f"{n:0200d}"} for n in IDS]
    db["c"].insert_many(made)
    db["c"].create_index("text")
    db["target"].insert_many(made[:50])
    db["bystander"].insert_many(made)
    client["other"]["target"].insert_one({"_id": 0})
    db.create_collection("ring", capped=True, size=4 << 20)
    db["ring"].insert_many(made)


def _uuid(client: Client, name: str) -> Binary:
    found: Binary = next(client["db"].list_collections(filter={"name": name}))["info"]["uuid"]
    return Binary(bytes(found), 4)


def _moments(uuid: Binary, name: str) -> dict[str, Moment]:
    def is_find(command: dict[str, Any]) -> bool:
        return command.get("find") == uuid

    return {
        "before its first cursor": is_find,
        "at its first getMore": lambda c: "getMore" in c and c["collection"] == name,
        "while its ranges are planned": lambda c: is_find(c) and "skip" in c and "min" in c,
        "before a range": lambda c: is_find(c) and "skip" not in c and "max" in c and "min" in c,
        "in the middle of a range": _nth(6, lambda c: "getMore" in c and c["collection"] == name),
        "before its last range": lambda c: is_find(c) and "filter" in c and "skip" not in c,
    }


def _nth(number: int, moment: Moment) -> Moment:
    seen = 0

    def counted(command: dict[str, Any]) -> bool:
        nonlocal seen
        seen += moment(command)
        return seen == number

    return counted


def _act_at(
    patch: pytest.MonkeyPatch, node: Node, moment: Moment, act: Callable[[], Any]
) -> list[str]:
    """Let `act` happen once, just before a command for which `moment` says so."""
    happened: list[str] = []
    original = node.command

    async def command(database: str, sent: dict[str, Any], **options: Any) -> Any:
        if not happened and moment(sent):
            happened.append(str(sent))
            await asyncio.to_thread(act)
        return await original(database, sent, **options)

    patch.setattr(node, "command", command)
    return happened


MOMENTS = list(_moments(Binary(b"0" * 16, 4), "c"))


def _rename(client: Client) -> None:
    client["db"]["c"].rename("renamed")


def _rename_over_another(client: Client) -> None:
    client["db"]["c"].rename("target", dropTarget=True)


def _rename_across(client: Client) -> None:
    move = {"renameCollection": "db.c", "to": "other.target", "dropTarget": True}
    client.admin.command(move)


def _drop(client: Client) -> None:
    client["db"]["c"].drop()


def _recreate(client: Client) -> None:
    client["db"]["c"].drop()
    client["db"]["c"].insert_many([{"_id": n, "new": True} for n in range(100)])


def _recreate_by_rename(client: Client) -> None:
    client["db"]["c"].rename("moved")
    client["db"]["c"].insert_many([{"_id": n, "new": True} for n in range(100)])


def _make_capped(client: Client) -> None:
    client["db"].command({"convertToCapped": "c", "size": 10 << 20})


def _create_index(client: Client) -> None:
    client["db"]["c"].create_index([("text", -1), ("n", 1)])


def _drop_index(client: Client) -> None:
    client["db"]["c"].drop_index("text_1")


def _coll_mod(client: Client) -> None:
    client["db"].command({"collMod": "c", "validator": {"n": 1}, "validationLevel": "strict"})


def _drop_database(client: Client) -> None:
    client.drop_database("db")


def _delete_all(client: Client) -> None:
    client["db"]["c"].delete_many({})


SURVIVED = {
    _rename,
    _rename_over_another,
    _recreate_by_rename,
    _create_index,
    _drop_index,
    _coll_mod,
    _delete_all,
}
GONE = {_rename_across, _drop, _recreate, _make_capped, _drop_database}


async def _snapshot(
    replset: ReplicaSet,
    patch: pytest.MonkeyPatch,
    moment: str,
    change: Callable[[Client], None],
    name: str = "c",
) -> tuple[SnapshotOutcome, MemoryStorage, str]:
    client = replset.client()
    _seed(client)
    small_units(patch, UNIT_BYTES)
    storage = await MemoryStorage.open()
    uuid = _uuid(client, name)
    async with open_node(replset) as node:
        chosen = _moments(uuid, name)[moment]
        happened = _act_at(patch, node, chosen, lambda: change(client))
        # One reader: the moments are then the same each time.
        outcome = await take(node, storage, readers=1)
        assert happened, "the moment never came"
    return outcome, storage, bytes(uuid).hex()


@pytest.mark.parametrize("change", sorted(SURVIVED, key=str), ids=lambda f: f.__name__)
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_collection_that_lives_on_is_read_whole(
    one_node: ReplicaSet,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    change: Callable[[Client], None],
) -> None:
    outcome, storage, uuid = await _snapshot(one_node, monkeypatch, moment, change)
    target = [entry.uuid for entry in outcome.begun.catalogue if entry.ns == "db.target"]
    assert set(outcome.gone) <= set(target)
    assert next(e.uuid for e in outcome.begun.catalogue if e.ns == "db.c") == uuid
    parts = await parts_of(storage, outcome.objects)
    found = sorted(bson.decode(raw)["_id"] for part in parts[uuid] for raw in part.raw)
    assert found == IDS
    for part in parts[uuid]:
        low, high = part.bounds
        assert all((low is None or low <= n) and (high is None or n < high) for n in part.ids)
        assert outcome.begun.catalogue_at <= part.segment.read_at <= outcome.read_end
    held = await contents(storage, outcome)
    assert len(held["db.bystander"]) == DOCUMENTS
    await oplog_of(storage, outcome)


@pytest.mark.parametrize("change", sorted(GONE, key=str), ids=lambda f: f.__name__)
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_collection_that_is_dropped_is_given_up_and_its_drop_is_in_the_slices(
    one_node: ReplicaSet,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    change: Callable[[Client], None],
) -> None:
    outcome, storage, uuid = await _snapshot(one_node, monkeypatch, moment, change)
    assert uuid in outcome.gone
    entries = await oplog_of(storage, outcome)
    dropped = {bytes(e["ui"]).hex() for e in entries if e["op"] == "c" and "drop" in e["o"]} | {
        bytes(e["o"]["dropTarget"]).hex()
        for e in entries
        if e["op"] == "c" and isinstance(e["o"].get("dropTarget"), bytes)
    }
    assert set(outcome.gone) <= dropped
    parts = await parts_of(storage, outcome.objects)
    for part in parts.get(uuid, []):
        # What was read of it before is still what it was.
        assert all("new" not in bson.decode(raw) for raw in part.raw)
    if change is not _drop_database:
        assert len((await contents(storage, outcome))["db.bystander"]) == DOCUMENTS


async def test_a_capped_collection_that_is_emptied_is_read_again_as_it_is_then(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def empty(client: Client) -> None:
        client["db"].command({"emptycapped": "ring"})

    outcome, storage, uuid = await _snapshot(
        one_node, monkeypatch, "at its first getMore", empty, "ring"
    )
    assert outcome.gone == ()
    parts = await parts_of(storage, outcome.objects)
    assert [raw for part in parts.get(uuid, []) for raw in part.raw] == []
    assert any("emptycapped" in ref.commands for ref in outcome.slices)


async def test_a_rename_and_a_new_collection_under_the_name_does_not_spoil_the_ranges(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes are asked for by name: those of the small newcomer must not make one huge unit."""
    outcome, _, uuid = await _snapshot(
        one_node, monkeypatch, "at its first getMore", _recreate_by_rename
    )
    own = [o for o in outcome.objects if any(s.uuid == uuid for s in o.segments)]
    assert sum(item.documents for item in own) == DOCUMENTS
    assert max(item.plain_bytes for item in own) < 4 * UNIT_BYTES


async def test_a_collection_that_vanishes_without_a_drop_in_the_oplog_fails_the_backup(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = one_node.client()
    client["db"]["c"].insert_one({"_id": 1})
    original = Reader.read_small

    async def vanish(reader: Reader, entry: Any) -> Any:
        if entry.ns == "db.c":
            raise CollectionGone("Unable to resolve", code=26)
        return await original(reader, entry)

    monkeypatch.setattr(Reader, "read_small", vanish)
    async with open_node(one_node) as node:
        with pytest.raises(IntegrityError, match=r"db\.c vanished"):
            await take(node, await MemoryStorage.open())


async def test_a_collection_that_changes_all_the_time_is_given_up_on_with_a_reason(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = one_node.client()
    client["db"]["c0"].insert_one({"_id": 1})
    storage = await MemoryStorage.open()
    renames = 0

    async with open_node(one_node) as node:
        original, no_wait = node.command, asyncio.sleep

        async def command(database: str, sent: dict[str, Any], **options: Any) -> Any:
            nonlocal renames
            if isinstance(sent.get("find"), Binary) and renames >= 0:
                source, renames = f"c{renames}", renames + 1
                await asyncio.to_thread(client["db"][source].rename, f"c{renames}")
            return await original(database, sent, **options)

        async def at_once(clock: object, seconds: float) -> None:
            await no_wait(0)

        monkeypatch.setattr(node, "command", command)
        monkeypatch.setattr("agent.clock.SystemClock.sleep", at_once)
        with pytest.RaisesGroup(
            pytest.RaisesExc(NodeUnavailable, match="lost to changes"), flatten_subgroups=True
        ):
            await take(node, storage)
    assert renames > 5
