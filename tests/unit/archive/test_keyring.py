"""Data keys and policies: made once, proven again, wrapped anew, never given up."""

from __future__ import annotations

import json

import pytest

from agent.archive.keyring import TRUST_S
from agent.archive.layout import KEYS, chunk_key, data_key_key, policy_key
from agent.archive.objects import get_json, put_json
from agent.archive.policies import read_policies
from agent.archive.vault import keyring_of, stored_name, with_one_key, write_for
from agent.errors import ConfigError, IntegrityError, KeyUnusable, ObjectExists, Refused
from agent.operations.deletion import delete_backup
from agent.operations.keys_kept import probe
from agent.storage.base import put_bytes
from agent.storage.fanout import FanOut
from agent.storage.memory import MemoryStorage
from agent.storage.routed import Routed
from agent.wire.encryption import DataKeyRecord, Kek, Policy, follows
from tests.support.faulty_storage import FaultyStorage
from tests.support.vaults import NOW, SECOND, Vaults

CHUNK = {"key": "chunks/c", "size_bytes": 1, "sha256": "", "plain_bytes": 1, "segments": []}
KEY = "backups/b/rs0/journal/00000001-00000000.json.zst"


async def test_whoever_writes_for_the_same_backup_uses_the_same_key() -> None:
    vaults = Vaults()
    await vaults.policy()
    first, second = await vaults.writing(), await vaults.writing()
    one = await first.keyring.writing_key(KEY)
    assert await second.keyring.writing_key(KEY) == one
    other = await (await vaults.writing("another")).keyring.writing_key(KEY)
    assert other.key != one.key


async def test_each_day_of_slices_has_a_key_of_its_own() -> None:
    vaults = Vaults()
    await vaults.policy()
    storage = await vaults.open()
    await write_for(storage, "pitr", "rs0")
    name = "slices/rs0/{}/0000000001-0000000001_0000000002-0000000001_000001_00000001.bson.zst"
    days = [await storage.keyring.writing_key(name.format(day)) for day in ("20261122", "20261123")]
    assert days[0].id.startswith("pitr-rs0-20261122-")
    assert days[1].id.startswith("pitr-rs0-20261123-")


async def test_no_key_lies_on_the_storage_in_clear() -> None:
    vaults = Vaults()
    await vaults.policy()
    made = await (await vaults.writing()).keyring.writing_key(KEY)
    whole = b"".join(vaults.objects.bodies.values())
    for form in (made.key, made.key.hex().encode(), vaults.environment["KEY"].encode()):
        assert form not in whole


async def test_a_key_that_is_taken_away_stops_the_writer_soon_and_lets_it_go_on() -> None:
    vaults = Vaults()
    await vaults.policy()
    storage = await vaults.writing()
    made = await storage.keyring.writing_key(KEY)
    vaults.environment["KEY"] = SECOND
    assert await storage.keyring.writing_key(KEY) == made
    await vaults.clock.advance(TRUST_S + 1)
    with pytest.raises(KeyUnusable, match=made.id):
        await storage.keyring.writing_key(KEY)
    vaults.environment["KEY"] = "ab" * 32
    assert await storage.keyring.writing_key(KEY) == made


@pytest.mark.parametrize(
    "key",
    [
        chunk_key("rs0", "0" * 32, "op", 1, 1),
        "slices/rs0/20261122/x.bson.zst",
        "backups/b/rs0/manifest-00000001.json.zst",
        "restores/b/rs0-00000001-00000000.json",
    ],
)
async def test_data_in_clear_is_refused_by_every_agent(key: str) -> None:
    vaults = Vaults()
    storage = await vaults.open()
    await put_bytes(storage, f"{key}.before", b"clear")
    await vaults.policy()
    storage = await vaults.open()
    with pytest.raises(Refused, match="not encrypted"):
        await put_bytes(storage, key, b"clear")
    await put_bytes(storage, "backups/b/backup.json", b"{}")


async def test_a_missing_or_changed_policy_is_found() -> None:
    vaults = Vaults()
    first = await vaults.policy()
    await vaults.policy("KEY", "OTHER", before=first)
    inner = await MemoryStorage.open(vaults.objects)
    assert [policy.number for policy in await read_policies(inner)] == [1, 2]
    good = dict(vaults.objects.bodies)
    vaults.objects.bodies[policy_key(1)] = good[policy_key(1)].replace(b'"rotate"', b'"forbid"')
    with pytest.raises(IntegrityError):
        await read_policies(inner)
    vaults.objects.bodies.update(good)
    await inner.delete([policy_key(1)])
    with pytest.raises(IntegrityError, match="missing"):
        await read_policies(inner)


def policy(*keks: Kek, before: Policy | None = None, **changes: object) -> Policy:
    made = Policy(
        number=before.number + 1 if before else 1,
        repository_id="r",
        keks=keks,
        created_at=NOW,
        since=NOW,
        previous_sha256=before.sha256 if before else None,
        authority=AUTHORITY,
    )
    return made.model_copy(update=changes)


AUTHORITY = DataKeyRecord(key_id="authority-1", repository_id="r", created_at=NOW, wraps=())
LOCAL = Kek(id="a", provider="passphrase", key="k", fingerprint="1")
SERVICE = Kek(id="b", provider="aws-kms", key="k", fingerprint="2", is_service=True)


def test_a_policy_never_takes_back_what_an_earlier_one_promised() -> None:
    first = policy(SERVICE)
    assert follows(None, first) is None
    assert follows(first, policy(SERVICE, LOCAL, before=first)) is None
    assert "for less" in str(follows(first, policy(LOCAL, before=first, retired=(SERVICE,))))
    assert "forgets" in str(follows(policy(LOCAL), policy(SERVICE, before=policy(LOCAL))))
    assert "continue" in str(follows(first, policy(SERVICE, before=policy(LOCAL))))
    strict = policy(SERVICE, key_change="forbid")
    assert "forbids" in str(follows(strict, policy(SERVICE, LOCAL, before=strict)))
    with pytest.raises(ValueError, match="required"):
        Policy.model_validate({**first.to_json(), "required": False})


async def test_a_rotation_adds_wraps_and_writes_no_object_anew() -> None:
    vaults = Vaults()
    first = await vaults.policy()
    storage = await vaults.writing()
    await put_json(storage, stored_name(storage, KEY), json.dumps({"units": []}))
    made = await storage.keyring.writing_key(KEY)
    before = dict(vaults.objects.bodies)
    second = await vaults.policy("OTHER", before=first)
    record = await storage.keyring.record(made.id)
    storage = await vaults.open()
    added = await storage.keyring.add_wraps(record, made.key)
    assert added == (second.keks[0].id,)
    assert before.items() <= vaults.objects.bodies.items()
    assert data_key_key(made.id, second.keks[0].id) in vaults.objects.bodies
    del vaults.environment["KEY"]
    again = await vaults.open()
    assert json.loads(await get_json(again, KEY + ".enc")) == {"units": []}
    with pytest.raises(ObjectExists):
        await put_bytes(again, data_key_key(made.id, second.keks[0].id), b"")


async def test_a_deleted_backup_takes_all_wraps_of_its_data_key_along() -> None:
    vaults = Vaults()
    first = await vaults.policy()
    storage = await vaults.writing()
    made = await storage.keyring.writing_key(KEY)
    entry = {"slices": [], "units": [{"objects": [CHUNK | {"key_id": made.id}]}]}
    await put_json(storage, stored_name(storage, KEY), "{}", public=json.dumps(entry))
    await vaults.policy("OTHER", before=first)
    storage = await vaults.open()
    await storage.keyring.add_wraps(await storage.keyring.record(made.id), made.key)
    assert len([key for key in vaults.objects.keys if key.startswith(KEYS)]) == 2
    vaults.environment.clear()
    await delete_backup(await vaults.open(), "b")
    assert not [key for key in vaults.objects.keys if key.startswith((KEYS, "backups/"))]


async def test_a_probe_tells_of_keys_that_do_not_open_and_makes_wraps_good() -> None:
    vaults = Vaults()
    first = await vaults.policy()
    storage = await vaults.writing()
    await storage.keyring.writing_key(KEY)
    await vaults.policy("KEY", "OTHER", before=first)
    found, problem = await probe((await vaults.open()).keyring)
    assert problem is None
    assert len(found[0].keks) == 2
    vaults.environment["KEY"] = SECOND
    found, problem = await probe((await vaults.open()).keyring)
    assert found[0].error is None
    assert "a wrap that does not open" in str(problem)
    vaults.environment["OTHER"] = "ef" * 32
    found, problem = await probe((await vaults.open()).keyring)
    assert "does not open the data key backup-op-" in str(found[0].error)
    assert vaults.remembered.problem == problem is not None


async def test_storages_written_to_as_one_hold_the_same_key() -> None:
    first, second = Vaults(), Vaults()
    await second.policy()
    storages = [await first.open(), await second.open()]

    async def on_loss(name: str, error: Exception) -> None:
        raise AssertionError(f"{name}: {error}")

    whole = await with_one_key(FanOut(dict(zip("ab", storages, strict=True)), on_loss), storages)
    await write_for(whole, "backup", "op")
    await put_json(whole, stored_name(whole, KEY), "{}")
    for vaults in (first, second):
        assert any(key.startswith(KEYS) for key in vaults.objects.keys)
        assert await get_json(await vaults.open(), KEY + ".enc") == b"{}"


@pytest.mark.parametrize(("base_keys", "main_keys"), [(True, True), (True, False), (False, True)])
async def test_a_backup_elsewhere_and_slices_of_main_are_each_opened_with_their_own_keys(
    base_keys: bool, main_keys: bool
) -> None:
    base, main = Vaults(), Vaults(environment={"KEY": SECOND})
    names = {}
    keys = {"backup": KEY, "pitr": "slices/rs0/20261122/x.json.zst"}
    for vaults, kind, has_keys in ((base, "backup", base_keys), (main, "pitr", main_keys)):
        if has_keys:
            await vaults.policy()
        storage = await vaults.open()
        await write_for(storage, kind, "rs0")
        names[kind] = stored_name(storage, keys[kind])
        await put_json(storage, names[kind], f"of the {kind}")
    routed = Routed(await base.open(), await main.open(), [names["pitr"]])
    for kind, name in names.items():
        assert await get_json(routed, name) == f"of the {kind}".encode()
        keyring = keyring_of(routed, name)
        assert keyring is not None
        has_keys = base_keys if kind == "backup" else main_keys
        assert (await keyring.policy() is not None) is has_keys
    await write_for(routed, "restore", "r1")
    assert stored_name(routed, "restores/r1/state.json").endswith(".enc") is base_keys


async def test_a_policy_that_anybody_in_the_agent_has_read_holds_for_all_writers_at_once() -> None:
    vaults = Vaults()
    slicer, watch = await vaults.open(), await vaults.open()
    name = "slices/rs0/20261122/x.bson.zst"
    assert await write_for(slicer, "pitr", "rs0") is None
    assert stored_name(slicer, name) == name
    await vaults.policy()
    assert await write_for(slicer, "pitr", "rs0") is None  # nobody has told
    assert await watch.keyring.announced(fresh=True) is not None
    with pytest.raises(Refused):
        await put_bytes(slicer, name, b"in clear")
    assert await write_for(slicer, "pitr", "rs0") is not None
    assert stored_name(slicer, name) == name + ".enc"


async def test_a_storage_that_cannot_be_listed_is_told_as_what_it_is_to_readers_too() -> None:
    """A bucket that is not there, a certificate that nobody trusts: found out at the first call."""
    vaults = Vaults()
    keyring = (await vaults.open()).keyring
    faulty = FaultyStorage(keyring.storage)
    keyring.storage = faulty
    faulty.fail("list", ConfigError("no such bucket"), times=2)
    for ask in (keyring.announced, keyring.policy):
        with pytest.raises(ConfigError, match="no such bucket"):
            await ask(fresh=True)
    assert await keyring.announced() is None
