"""What cannot end well is refused by name, before anything on the target is touched."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast

import pytest

from agent.archive.layout import backup_key
from agent.archive.manifest import Manifest
from agent.errors import ConfigError, IntegrityError, NotFound, Refused, TargetNotCovered
from agent.mongo.node import Node
from agent.operations.restore.plan import read_manifest
from agent.storage.memory import MemoryStorage
from agent.wire.backups import Backup
from agent.wire.optime import OpTime
from tests.support.compare import Fingerprint, assert_same, fingerprint
from tests.support.faulty_storage import FOREVER, FaultyStorage
from tests.support.mongod import ReplicaSet
from tests.support.restoring import RestoreRun, open_node, publish, take_backup

Bodies = dict[str, bytes]


@dataclass
class World:
    """A small backup with slices, and a target that differs from it."""

    replset: ReplicaSet
    node: Node
    storage: MemoryStorage
    backup: Backup
    manifest: Manifest
    target: Fingerprint

    @property
    def bodies(self) -> Bodies:
        return self.storage.objects.bodies

    async def refused(self, kind: type[Exception], match: str, **spec: object) -> None:
        run = RestoreRun.of(self.node, self.storage, self.backup, **spec)
        with pytest.raises(kind, match=match):
            await run.work()
        assert_same(self.target, await asyncio.to_thread(fingerprint, self.replset.client()))

    async def publish(self, manifest: Manifest, name: str) -> None:
        renamed = manifest.model_copy(update={"backup": name})
        self.backup = await publish(self.node, self.storage, renamed)


@pytest.fixture
async def world(one_node: ReplicaSet) -> AsyncIterator[World]:
    client = one_node.client()
    client["db"]["c"].insert_many([{"n": n} for n in range(100)])
    client["db"]["d"].insert_one({})
    node, storage = await open_node(one_node), await MemoryStorage.open()

    async def write() -> None:
        client["db"]["c"].update_many({}, {"$set": {"m": 1}})

    backup = await take_backup(node, storage, before_end=write)
    client["db"]["c"].delete_many({})
    client["other"]["e"].insert_one({})
    manifest = await read_manifest(storage, backup.replsets[0])
    target = fingerprint(client)
    yield World(one_node, node, storage, backup, manifest, target)
    await node.aclose()


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def cut_short(data: bytes) -> bytes:
    return data[:-1]


@pytest.mark.parametrize("harm", [flipped, cut_short])
async def test_a_harmed_object_is_named(world: World, harm: Callable[[bytes], bytes]) -> None:
    manifest = world.manifest
    for key in (manifest.objects[0].key, manifest.slices[-1].key):
        whole = world.bodies[key]
        world.bodies[key] = harm(whole)
        await world.refused(IntegrityError, key)
        world.bodies[key] = whole


async def test_what_is_changed_on_its_way_is_read_again_and_named_where_that_does_not_help(
    world: World,
) -> None:
    """Once in the preflight, once where it is loaded, each time a single reading; then for good."""
    faulty = FaultyStorage(world.storage)
    for item in (world.manifest.objects[0], world.manifest.slices[-1]):
        for call in (1, 3):
            faulty.corrupt("get", at=60, call=call, matching=item.key)
    await RestoreRun.of(world.node, faulty, world.backup).work()
    client = world.replset.client()
    assert client["db"]["c"].count_documents({"m": 1}) == 100
    assert "other" not in client.list_database_names()
    world.target = await asyncio.to_thread(fingerprint, client)
    faulty.corrupt("get", at=60, times=FOREVER, matching="chunks/")
    world.storage = cast(MemoryStorage, faulty)
    keys = (re.escape(item.key) for item in world.manifest.objects)  # which is met first is luck
    await world.refused(IntegrityError, "|".join(keys))


async def test_a_missing_object_is_named(world: World) -> None:
    for key in (world.manifest.objects[0].key, world.manifest.slices[0].key):
        whole = world.bodies.pop(key)
        await world.refused(IntegrityError, f"{key} is missing")
        world.bodies[key] = whole


async def test_a_harmed_manifest_is_named(world: World) -> None:
    key = world.backup.replsets[0].manifest_key
    world.bodies[key] = flipped(world.bodies[key])
    await world.refused(IntegrityError, key)


async def test_a_harmed_backup_document_is_named(world: World) -> None:
    key = backup_key(world.backup.id)
    world.bodies[key] = b"{}"
    await world.refused(IntegrityError, key)


@pytest.mark.story("F3", "PBM-1550")
async def test_slices_that_do_not_link_are_named(world: World) -> None:
    broken = world.manifest.slices[-1].model_copy(update={"previous_sha256": "0" * 64})
    first = world.manifest.slices[0].model_copy(
        update={"end": OpTime(T=broken.start.T, I=broken.start.I), "sha256": "1" * 64}
    )
    slices = (first, broken.model_copy(update={"start": first.end}))
    await world.publish(world.manifest.model_copy(update={"slices": slices}), "unlinked")
    await world.refused(IntegrityError, "does not continue")


async def test_slices_that_begin_too_late_are_told(world: World) -> None:
    late = world.manifest.slices[0].model_copy(update={"start": world.manifest.last_write})
    await world.publish(world.manifest.model_copy(update={"slices": (late,)}), "late")
    await world.refused(IntegrityError, "first write")


async def test_an_unknown_command_is_told(world: World) -> None:
    strange = world.manifest.slices[-1].model_copy(update={"commands": ("importCollection",)})
    slices = (*world.manifest.slices[:-1], strange)
    await world.publish(world.manifest.model_copy(update={"slices": slices}), "strange")
    await world.refused(Refused, "importCollection")


async def test_an_unknown_backup_is_told_with_the_nearest(world: World) -> None:
    run = RestoreRun.of(world.node, world.storage, world.backup)
    run.spec = run.spec.model_copy(update={"backup": "bass"})
    with pytest.raises(NotFound, match="bass") as caught:
        await run.work()
    assert caught.value.hint == "nearest: base"


async def test_another_replica_set_needs_a_remapping(world: World) -> None:
    shares = tuple(s.model_copy(update={"replset": "far"}) for s in world.backup.replsets)
    other = world.backup.model_copy(update={"replsets": shares})
    text = other.model_dump_json(by_alias=True, exclude_none=True)
    world.bodies[backup_key(other.id)] = text.encode()
    run = RestoreRun.of(world.node, world.storage, world.backup)
    with pytest.raises(Refused, match="replica set far") as caught:
        await run.work()
    assert "--replset-remapping one=far" in caught.value.hint
    await world.refused(ConfigError, "nowhere", replset_remapping={"nowhere": "one"})


async def test_an_older_server_is_refused(world: World) -> None:
    newer = world.backup.model_copy(update={"fcv": "99.0"})
    text = newer.model_dump_json(by_alias=True, exclude_none=True)
    world.bodies[backup_key(newer.id)] = text.encode()
    await world.refused(Refused, r"99\.0")


async def test_a_commit_quorum_that_no_build_could_reach_is_refused(world: World) -> None:
    await world.refused(Refused, "is 2, and the replica set has 1", index_commit_quorum=2)


async def test_names_that_nothing_bears_are_told(world: World) -> None:
    await world.refused(NotFound, r"db\.cc", ns=("db.cc",))
    await world.refused(NotFound, "nowhere", ns=("nowhere.*",))
    await world.refused(ConfigError, r"a\*", ns=("db.a*",))
    await world.refused(NotFound, r"db\.x", ns_from="db.x", ns_to="db.y")
    await world.refused(ConfigError, "go together", ns_from="db.c")


async def test_moments_that_are_not_covered_are_told(world: World) -> None:
    early = OpTime(T=world.manifest.read_end.T - 100, I=1)
    await world.refused(TargetNotCovered, "was read until", time=early)
    late = OpTime(T=world.manifest.last_write.T + 100, I=1)
    await world.refused(TargetNotCovered, "reach", time=late)
