"""The encrypted repository of the fixture opens for ever: by us with either key, and by the file
that is shipped for the day when there is no Tidelog."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from bson.raw_bson import RawBSONDocument

from agent.archive.layout import READABLE_VERSION
from agent.archive.objects import fetch_framed
from agent.archive.vault import VaultStorage, write_for
from agent.operations.keys_kept import probe
from agent.operations.restore.further import further_slices
from agent.operations.restore.plan import read_backup, read_manifest
from agent.operations.restore.preflight import check_chain
from agent.storage.memory import MemoryObjects
from agent.wire.optime import OpTime
from tests.support.golden_encrypted import AROUND
from tests.support.vaults import Vaults
from tests.unit.archive.foreign_reader import documents
from tests.unit.archive.stored_documents import stored_documents

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/fixtures/golden-v2"
REPOSITORY = GOLDEN / "repository"
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_bytes())
COLLECTIONS: dict[str, Any] = EXPECTED["collections"]
CLEAR, ACROSS, LATE = (
    OpTime(T=EXPECTED[name][0], I=EXPECTED[name][1]) for name in ("clear", "across", "late")
)


def vaults(*variables: str) -> Vaults:
    """The fixture in memory, around it some of its keys."""
    objects = MemoryObjects()
    for path in sorted(REPOSITORY.rglob("*")):
        if path.is_file():
            objects.bodies[path.relative_to(REPOSITORY).as_posix()] = path.read_bytes()
    objects.keys = sorted(objects.bodies)
    return Vaults(objects, {name: AROUND[name] for name in variables})


@pytest.fixture(params=["GOLDEN_PASSPHRASE", "GOLDEN_KEY"])
async def storage(request: pytest.FixtureRequest) -> VaultStorage:
    return await vaults(request.param).open()


def test_there_is_a_fixture_of_every_version_that_is_read() -> None:
    for version in range(1, READABLE_VERSION + 1):
        assert (ROOT / f"tests/fixtures/golden-v{version}").is_dir()
    files = [path for path in GOLDEN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000


def digest(found: list[bytes]) -> str:
    """As the fixture was made."""
    return hashlib.sha256(b"".join(sorted(found))).hexdigest()


def judge(catalogue: dict[str, str], found: dict[str, list[bytes]]) -> None:
    """`{uuid: namespace}` and the documents by UUID are what the server said."""
    assert set(catalogue.values()) == set(COLLECTIONS)
    for ns, expected in COLLECTIONS.items():
        assert catalogue[expected["uuid"]] == ns
        own = found.get(expected["uuid"], [])
        assert len(own) == expected["count"], ns
        assert digest(own) == expected["sha256"], ns


async def test_an_encrypted_backup_is_read_with_either_key(storage: VaultStorage) -> None:
    backup = await read_backup(storage, EXPECTED["sealed"])
    assert backup.ns == ("shop.*",)  # sealed in its document
    (share,) = backup.replsets
    manifest = await read_manifest(storage, share)
    found = await stored_documents(storage, manifest)
    judge({entry.uuid: entry.ns for entry in manifest.catalogue}, found)


async def test_a_backup_in_clear_and_the_chain_across_the_switch_hold(
    storage: VaultStorage,
) -> None:
    backup = await read_backup(storage, EXPECTED["old"])
    assert backup.encryption is None
    for at in (CLEAR, ACROSS, LATE):
        chain = await further_slices(storage, "rs0", since=backup.last_write, until=at)
        check_chain(chain, backup.last_write, at)
        for item in chain:
            await fetch_framed(storage, item.key, size_bytes=item.size_bytes, sha256=item.sha256)
    kinds = {item.key.endswith(".enc") for item in chain}
    assert kinds == {True, False}


async def test_all_its_data_keys_open_and_the_next_one_is_under_both_keys() -> None:
    both = await vaults(*AROUND).open()
    found, problem = await probe(both.keyring)
    assert problem is None
    assert len(found) == 2
    assert {len(health.keks) for health in found} == {2}
    await write_for(both, "backup", "next")
    made = await both.keyring.writing_key("backups/next/backup.json")
    assert len((await both.keyring.record(made.id)).wraps) == 2


@pytest.fixture
def decrypt() -> Callable[[list[str]], dict[str, int]]:
    """`docs/tidelog_decrypt.py`, from where it lies."""
    spec = importlib.util.spec_from_file_location(
        "tidelog_decrypt", ROOT / "docs/tidelog_decrypt.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[list[str]], dict[str, int]] = module.decrypt
    return found


def expanded(path: Path) -> bytes:
    """A zstd file of several frames."""
    with path.open("rb") as source:
        return zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True).read()


@pytest.mark.parametrize("key", ["passphrase", "keyfile"])
def test_the_decryptor_without_tidelog_reads_it(
    tmp_path: Path, key: str, decrypt: Callable[[list[str]], dict[str, int]]
) -> None:
    given = [f"--{key}-file" if key == "passphrase" else "--keyfile", str(GOLDEN / key)]
    assert decrypt([*given, "--to", str(tmp_path), str(REPOSITORY)])["failed"] == 0
    (manifest_path,) = (tmp_path / "backups" / EXPECTED["sealed"]).rglob("manifest-*.json.zst")
    manifest = json.loads(expanded(manifest_path))
    found: dict[str, list[bytes]] = {}
    for item in manifest["objects"]:
        plain = expanded(tmp_path / item["key"].removesuffix(".enc"))
        for segment in item["segments"]:
            own = plain[segment["offset"] : segment["offset"] + segment["length"]]
            found.setdefault(segment["uuid"], []).extend(documents(own))
    judge({entry["uuid"]: entry["ns"] for entry in manifest["catalogue"]}, found)
    entries = [
        entry["ns"]
        for path in sorted(tmp_path.glob("slices/rs0/*/*.zst"))
        for entry in (RawBSONDocument(raw) for raw in documents(expanded(path)))
    ]
    assert "shop.large" in entries
