"""An encrypted repository as its users have it: agents, `ctl`, a storage that somebody searches."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bson import Timestamp

from tests.cluster.scene import Scene
from tests.support.agents import Agents
from tests.support.compare import diff
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet

pytestmark = pytest.mark.timeout(240)

PASSPHRASE = "correct horse battery staple"
MARKERS = [f"MARKER{number:04d}{secrets.token_hex(6)}" for number in range(1000)]
DATABASE = "vaultedpeople"
COLLECTIONS = ("secretledger", "hiddenpayroll", "quietindex")


@pytest.fixture
def scene(one_node: ReplicaSet, tmp_path: Path) -> Iterator[Scene]:
    """One node, its agent, which knows a passphrase, and an empty repository."""
    with Agents(one_node, extra={"BACKUP_PASSPHRASE": PASSPHRASE}) as agents:
        found = Scene(one_node, agents, Ctl(one_node.uri()), tmp_path / "repository")
        found.open()
        yield found


def enable(scene: Scene, *arguments: str) -> dict[str, Any]:
    """Switch encryption on with the passphrase that agents have in their environment."""
    given = arguments or ("--provider", "passphrase", "--passphrase-env", "BACKUP_PASSPHRASE")
    found: dict[str, Any] = scene.ctl.ok("encryption", "enable", *given, "-y", "--wait")
    return found


def write(scene: Scene, first: int, count: int) -> None:
    """Documents whose `_id`s and values are markers."""
    for name in COLLECTIONS:
        scene.client[DATABASE][name].insert_many(
            {"_id": f"{marker}{name}", "value": marker, "pad": marker * 20}
            for marker in MARKERS[first : first + count]
        )
    scene.client[DATABASE].secretledger.create_index("value", name="hushedindex")


def held_moment(scene: Scene) -> tuple[int, int]:
    """The newest OpTime."""
    found = scene.client.admin.command("hello")["lastWrite"]["majorityOpTime"]["ts"]
    assert isinstance(found, Timestamp)
    return found.time, found.inc


def searched(paths: list[Path]) -> list[str]:
    """What of our secrets is in these files."""
    words = [*MARKERS, DATABASE, *COLLECTIONS, "hushedindex", PASSPHRASE, "BACKUPKEY"]
    found = []
    for path in paths:
        data = path.read_bytes() + str(path).encode()
        found += [f"{word} in {path}" for word in words if word.encode() in data]
    return found


def files(scene: Scene) -> set[Path]:
    """All objects."""
    return {p for p in scene.repository.rglob("*") if p.is_file() and not p.name.startswith(".")}


def test_nothing_can_be_read_off_the_storage_and_every_moment_is_restored(scene: Scene) -> None:
    scene.enable_pitr(1.0)
    write(scene, 0, 300)
    scene.backup()
    write(scene, 300, 200)
    in_clear, at_clear = scene.fingerprint(), held_moment(scene)
    scene.wait_covered(at_clear)
    before = files(scene)
    assert searched(sorted(before))  # the search finds what is there

    enable(scene)
    assert scene.ctl.ok("encryption", "status")["enabled"] is True
    # The slicer begins anew with the settings that were touched; what it wrote until then is old.
    scene.client[DATABASE].secretledger.insert_one({"_id": "first"})
    eventually(
        lambda: any(str(p).endswith(".bson.zst.enc") for p in files(scene)),
        60.0,
        describe=scene.agents.log_tails,
    )
    before = {p for p in files(scene) if not p.name.endswith(".enc")} | before
    write(scene, 500, 250)
    across, at_across = scene.fingerprint(), held_moment(scene)
    scene.wait_covered(at_across)
    encrypted = scene.backup("--ns", f"{DATABASE}.*")["name"]
    whole = scene.backup()["name"]
    write(scene, 750, 250)
    after, at_after = scene.fingerprint(), held_moment(scene)
    scene.wait_covered(at_after)

    fresh = sorted(files(scene) - before)
    sealed = [p for p in fresh if p.name.endswith(".enc")]
    assert len(sealed) > 10
    assert not searched(fresh)
    assert all(
        p.name.endswith(".enc")
        or p.name == "backup.json"
        or p.parent.name in ("keys", "encryption")
        for p in fresh
    ), fresh

    described = scene.ctl.ok("describe-backup", encrypted)
    assert described["encryption"]["keys"][0]["wraps"][0]["kek"]["provider"] == "passphrase"
    assert described["selective"] is True
    for at, expected in ((at_across, across), (at_clear, in_clear), (at_after, after)):
        scene.restore("--time", f"{at[0]},{at[1]}")
        assert not diff(expected, scene.fingerprint())
    scene.restore(whole)
    assert not diff(across, scene.fingerprint())
    scene.client.drop_database(DATABASE)
    scene.restore(encrypted)
    names = set(scene.client[DATABASE].list_collection_names())
    assert set(COLLECTIONS) <= names
    scene.ctl.ok("delete-backup", whole, "-y", "--wait")
