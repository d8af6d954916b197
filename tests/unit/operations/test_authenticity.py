"""Somebody who can write to the storage, and has no key, forges what a restore would trust."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, cast

import pytest

from agent.archive import census
from agent.archive.census import write_census
from agent.archive.codec import Compression, digest_of
from agent.archive.layout import backup_key, chunk_key, data_key_key, journal_key, slice_key
from agent.archive.manifest import SliceRef
from agent.archive.objects import put_framed, put_json
from agent.archive.policies import read_policies, write_policy
from agent.archive.vault import VaultStorage, stored_name, write_for
from agent.archive.wraps import stored_record
from agent.errors import IntegrityError, KeyUnusable
from agent.operations.authenticity import is_own, take_census
from agent.operations.backup.journal import read_journal
from agent.operations.backup.secrecy import sealed
from agent.operations.chains import rebuild
from agent.operations.restore.further import further_slices
from agent.operations.restore.plan import read_backup
from agent.operations.slices import read_slice_ref
from agent.operations.verification.checking import Checker
from agent.operations.verification.ledger import Ledger
from agent.storage.base import Storage, get_bytes, put_bytes
from agent.storage.memory import MemoryStorage
from agent.wire.backups import Backup
from agent.wire.encryption import CensusRef, Kek, Policy, follows
from agent.wire.optime import OpTime
from tests.support.vaults import NOW, Vaults
from tests.unit.operations.repositories import REPLSET, make_chunk, publish, write_journal

KEY = "backups/b/rs0/journal/00000001-00000000.json.zst"


def at(second: int) -> OpTime:
    """Relative to the switch."""
    return OpTime(T=int(NOW.timestamp()) + second, I=1)


async def put_slice(storage: Storage, start: int, end: int, previous: str | None) -> str:
    """Store a slice; answers its digest."""
    header = {
        "kind": "slice",
        "start": at(start).to_json(),
        "start_term": 1,
        "end": at(end).to_json(),
        "end_term": 1,
        "count": 1,
        "previous_sha256": previous,
        "commands": [],
    }
    key = stored_name(storage, slice_key(REPLSET, at(start), at(end), 1, 1))
    frame = await Compression().frame(f"{start}-{end}".encode())
    _, digest = await put_framed(storage, key, header, [frame])
    return digest


async def chain(storage: Storage, *ends: int, previous: str | None = None) -> str:
    """Linked slices; answers the digest of the last."""
    for start, end in pairwise(ends):
        previous = await put_slice(storage, start, end, previous)
    assert previous is not None
    return previous


def stored(backup: Backup) -> bytes:
    """Its document."""
    return backup.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()


class World:
    """A repository that was encrypted when it held the backup `old` and slices up to 0."""

    def __init__(self) -> None:
        self.vaults = Vaults()
        self.policy: Policy
        self.last = ""

    async def make(self) -> World:
        raw = await self.raw()
        await publish(raw, "old", "op-old", [await make_chunk(raw, "op-old", 0)])
        self.last = await chain(raw, -7200, -4000, -3700, -100, 0)
        census = await write_census(raw, await take_census(raw, "r1"))
        self.policy = await self.vaults.policy(census=census)
        return self

    async def raw(self) -> MemoryStorage:
        """As the attacker has it."""
        return await MemoryStorage.open(self.vaults.objects)

    async def archive(self, *ends: int) -> None:
        """Slices as the archiver writes them after the switch."""
        storage = await self.vaults.open()
        await write_for(storage, "pitr", REPLSET)
        self.last = await chain(storage, *ends, previous=self.last)

    async def encrypted(self, name: str) -> Backup:
        """An encrypted backup without objects."""
        raw = await self.raw()
        made = await publish(raw, name, f"op-{name}", [])
        await raw.delete([backup_key(name)])
        storage = await self.vaults.writing(f"op-{name}")
        data_key = await storage.keyring.writing_key(backup_key(name))
        backup = await sealed(storage, made, {data_key.id})
        await put_bytes(raw, backup_key(name), stored(backup))
        return backup

    async def forge(self, name: str) -> None:
        """A backup in clear, whole and with digests that are right."""
        raw = await self.raw()
        if backup_key(name) in self.vaults.objects.bodies:
            await raw.delete([backup_key(name), f"backups/{name}/rs0/manifest-00000001.json.zst"])
        await publish(raw, name, f"forged-{name}", [await make_chunk(raw, "forged", 1)])

    async def verdict(self, name: str) -> list[str]:
        """What `verify` has against a backup."""
        storage = await self.vaults.open()
        tally = await Checker(storage, Ledger({}), False, lambda _: None).backup(name)
        return list(tally.problems.values())


@pytest.fixture
async def world() -> World:
    return await World().make()


async def test_a_backup_from_before_the_switch_stays_as_good_as_it_was(world: World) -> None:
    assert (await read_backup(await world.vaults.open(), "old")).op_id == "op-old"
    assert await world.verdict("old") == []


@pytest.mark.parametrize("name", ["new", "old", "sealed"])
async def test_a_forged_backup_in_clear_is_refused_and_told(world: World, name: str) -> None:
    await world.encrypted("sealed")
    assert await world.verdict("sealed") == []
    await world.forge(name)
    with pytest.raises(IntegrityError, match=f"the backup {name} at .* is in clear") as caught:
        await read_backup(await world.vaults.open(), name)
    assert "forged" in caught.value.hint
    (problem,) = await world.verdict(name)
    assert "is in clear" in problem


@pytest.mark.parametrize("field", ["last_write", "replsets", "ns", "op_id"])
async def test_a_changed_document_of_an_encrypted_backup_is_found(world: World, field: str) -> None:
    backup = await world.encrypted("sealed")
    changed = {
        "last_write": at(7),
        "replsets": tuple(
            part.model_copy(update={"manifest_sha256": "0" * 64}) for part in backup.replsets
        ),
        "ns": ("a.b",),
        "op_id": "another",
    }
    await read_backup(await world.vaults.open(), "sealed")
    data = stored(backup.model_copy(update={field: changed[field]}))
    world.vaults.objects.bodies[backup_key("sealed")] = data
    with pytest.raises(IntegrityError, match="is not what was written"):
        await read_backup(await world.vaults.open(), "sealed")
    assert any("is not what was written" in told for told in await world.verdict("sealed"))


async def test_a_backup_under_the_name_of_another_is_found(world: World) -> None:
    await world.encrypted("one")
    await world.encrypted("two")
    await read_backup(await world.vaults.open(), "one")
    bodies = world.vaults.objects.bodies
    bodies[backup_key("one")] = bodies[backup_key("two")]
    with pytest.raises(IntegrityError, match="is that of the backup two"):
        await read_backup(await world.vaults.open(), "one")


async def test_verify_tells_of_a_backup_whose_key_cannot_be_used(world: World) -> None:
    await world.encrypted("sealed")
    world.vaults.environment["KEY"] = "ef" * 32
    (problem,) = await world.verdict("sealed")
    assert "cannot be unwrapped" in problem


async def further(world: World, since: int, until: int) -> tuple[SliceRef, ...]:
    """As a restore finds them."""
    return await further_slices(
        await world.vaults.open(), REPLSET, since=at(since), until=at(until)
    )


async def test_slices_across_the_switch_are_what_was_archived(world: World) -> None:
    assert len(await further(world, -50, 0)) == 1
    assert len(await further(world, -5000, -4500)) == 1  # proven by those after it
    raw = await world.raw()
    world.last = await chain(raw, 0, 10, previous=world.last)  # in clear, while the switch was on
    await world.archive(10, 20, 30)
    assert [ref.end.T - at(0).T for ref in await further(world, -50, 30)] == [0, 10, 20, 30]
    assert len(await further(world, -50, 5)) == 2


async def test_slices_in_clear_that_nothing_vouches_for_are_refused(world: World) -> None:
    await chain(await world.raw(), 0, 10, previous=world.last)
    with pytest.raises(IntegrityError, match="is in clear, and nothing says"):
        await further(world, -50, 10)
    assert len(await further(world, -50, 0)) == 1


async def test_a_changed_slice_from_before_the_switch_is_found(world: World) -> None:
    """With all after it made anew, so that every link is right but the last one."""
    raw = await world.raw()
    keys = [item.key async for item in raw.list("slices/")]
    await raw.delete(keys[1:])
    first = digest_of([await get_bytes(raw, keys[0])])
    frames = [await Compression().frame(b"forged")]
    header = {
        "start": at(-4000).to_json(),
        "end": at(-3700).to_json(),
        "start_term": 1,
        "end_term": 1,
        "count": 1,
        "previous_sha256": first,
        "commands": [],
    }
    _, forged = await put_framed(raw, keys[1], header, frames)
    await chain(raw, -3700, -100, 0, previous=forged)
    with pytest.raises(IntegrityError, match="is in clear, and nothing says"):
        await further(world, -4000, -3800)


async def test_a_slice_in_clear_never_carries_on_from_an_encrypted_one(world: World) -> None:
    await world.archive(0, 10, 20)
    await chain(await world.raw(), 20, 4000, previous=world.last)
    with pytest.raises(IntegrityError, match="is in clear"):
        await further(world, -50, 4000)
    assert len(await further(world, -50, 20)) == 3
    await chain(await world.raw(), 4000, 8000, previous=None)
    runs = (await rebuild(await world.vaults.open(), REPLSET)).runs
    assert all(run.end <= at(4000) for run in runs)
    assert await is_own(await world.vaults.open(), await ref_of(world, 10, 20, ".enc"))
    assert not await is_own(await world.vaults.open(), await ref_of(world, 20, 4000))


async def ref_of(world: World, start: int, end: int, suffix: str = "") -> SliceRef:
    """Of a slice that is there."""
    key = slice_key(REPLSET, at(start), at(end), 1, 1) + suffix
    return await read_slice_ref(await world.raw(), key)


async def test_a_slice_that_only_looks_encrypted_is_refused(world: World) -> None:
    await world.archive(0, 10)
    bodies = world.vaults.objects.bodies
    key = slice_key(REPLSET, at(0), at(10), 1, 1) + ".enc"
    bodies[key] = bodies[key][:-1] + bytes([bodies[key][-1] ^ 1])
    with pytest.raises(IntegrityError, match="does not open"):
        await further(world, -50, 10)
    assert not await is_own(await world.vaults.open(), await ref_of(world, 0, 10, ".enc"))


async def test_a_census_that_was_changed_is_found(world: World) -> None:
    assert world.policy.census is not None
    raw = await world.raw()
    census._known.clear()
    await raw.delete([world.policy.census.key])
    await put_json(raw, world.policy.census.key, '{"repository_id": "r1"}')
    with pytest.raises(IntegrityError, match="not what was written"):
        await read_backup(await world.vaults.open(), "old")


async def test_a_journal_entry_in_clear_is_no_part_of_an_encrypted_backup(world: World) -> None:
    storage = await world.vaults.writing()
    begun = {"first_write": at(0).to_json(), "catalogue_at": at(0).to_json(), "catalogue": []}
    key = stored_name(storage, journal_key("b", REPLSET, 1, 0))
    await put_json(storage, key, json.dumps({"begun": begun}), public="{}")
    raw = await world.raw()
    await write_journal(raw, "b", 1, 1, [await make_chunk(raw, "forged", 1)])
    found = await read_journal(storage, "b", REPLSET)
    assert found.keys == [key]
    assert found.units == []


def evil(policy: Policy, **options: Any) -> Policy:
    """What somebody without a key would have the repository say: his own key is to wrap, too."""
    own = Kek(
        id="0" * 12,
        provider="keyfile",
        key="his",
        options=options or {"keyfile": {"env": "OTHER"}},
        fingerprint="0" * 16,
    )
    return policy.model_copy(
        update={
            "number": policy.number + 1,
            "previous_sha256": policy.sha256,
            "keks": (*policy.keks, own),
        }
    )


async def test_nobody_without_a_key_can_add_a_policy(world: World) -> None:
    raw = await world.raw()
    await world.vaults.writing()
    await write_policy(raw, evil(world.policy))
    assert len(await read_policies(raw)) == 2
    storage: VaultStorage = await world.vaults.open()
    for use in (storage.keyring.policy, storage.keyring.announced):
        with pytest.raises(IntegrityError, match="has no key of the repository"):
            await use()
    with pytest.raises(IntegrityError):
        await put_bytes(storage, chunk_key(REPLSET, "0" * 32, "op", 1, 1), b"clear")
    with pytest.raises(IntegrityError):
        await write_for(storage, "backup", "op")


async def test_a_policy_that_is_known_needs_no_key_and_a_new_one_does(world: World) -> None:
    world.vaults.environment.clear()
    unknown = (await world.vaults.open()).keyring
    with pytest.raises(KeyUnusable, match="the key that proves the encryption policy"):
        await unknown.policy()
    assert await unknown.announced() == world.policy  # a reader may have no key
    world.vaults.environment["KEY"] = "ab" * 32
    await (await world.vaults.open()).keyring.policy()
    world.vaults.environment.clear()
    assert await (await world.vaults.open()).keyring.policy() == world.policy


async def test_a_data_key_of_somebody_elses_choice_is_not_used(world: World) -> None:
    """He wraps a data key of his own under a key he names, and encrypts what he likes with it."""
    storage = await world.vaults.writing()
    made = await storage.keyring.writing_key(KEY)
    record = await storage.keyring.record(made.id)
    his = evil(world.policy).keks[-1]
    forged = record.wraps[0].model_copy(update={"kek": his})
    raw = await world.raw()
    alone = record.model_copy(update={"key_id": "backup-forged-1", "wraps": (forged,)})
    await put_bytes(raw, data_key_key("backup-forged-1"), stored_record(alone))
    with pytest.raises(KeyUnusable, match="no key of the repository wraps it"):
        await (await world.vaults.open()).keyring.data_key("backup-forged-1")


async def test_where_a_key_is_found_the_policy_says_and_not_what_lies_beside_data(
    world: World,
) -> None:
    storage = await world.vaults.writing()
    made = await storage.keyring.writing_key(KEY)
    bodies, key = world.vaults.objects.bodies, data_key_key(made.id)
    bodies[key] = bodies[key].replace(b'"env": "KEY"', b'"env": "OTHER"')
    bodies[key] = bodies[key].replace(b'"env":"KEY"', b'"env":"OTHER"')
    assert b"OTHER" in bodies[key]
    (wrap,) = (await (await world.vaults.open()).keyring.record(made.id)).wraps
    assert wrap.kek == world.policy.keks[0]
    assert await (await world.vaults.open()).keyring.data_key(made.id) == made.key


def test_the_census_can_never_be_exchanged(world: World) -> None:
    other = cast(CensusRef, world.policy.census).model_copy(update={"sha256": "0" * 64})
    assert "proven with" in str(_follows(world.policy, census=other))
    authority = world.policy.authority.model_copy(update={"key_id": "another"})
    assert "proven with" in str(_follows(world.policy, authority=authority))


def _follows(policy: Policy, **changes: Any) -> str | None:
    number = {"number": policy.number + 1, "previous_sha256": policy.sha256}
    return follows(policy, policy.model_copy(update={**number, **changes}))
