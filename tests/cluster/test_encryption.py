"""An encrypted repository as its users have it: agents, `ctl`, a storage that somebody searches."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import sys
import textwrap
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import bson
import cryptography
import pytest
from bson import Timestamp

from tests.cluster.scene import Scene
from tests.support.agents import Agents
from tests.support.compare import diff
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet
from tests.support.servers.moto import shared_moto

pytestmark = pytest.mark.timeout(240)

PASSPHRASE = "correct horse battery staple"
MARKERS = [f"MARKER{number:04d}{secrets.token_hex(6)}" for number in range(1000)]
DATABASE = "vaultedpeople"
COLLECTIONS = ("secretledger", "hiddenpayroll", "quietindex")


AROUND = {
    "BACKUP_PASSPHRASE": PASSPHRASE,
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
}


@pytest.fixture
def scene(one_node: ReplicaSet, tmp_path: Path) -> Iterator[Scene]:
    """One node, its agent, which knows a passphrase, and an empty repository."""
    with Agents(one_node, extra=AROUND) as agents:
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
    plain = scene.backup()["name"]
    write(scene, 300, 200)
    in_clear, at_clear = scene.fingerprint(), held_moment(scene)
    scene.wait_covered(at_clear)
    before = files(scene)
    assert searched(sorted(before))  # the search finds what is there

    enable(scene)
    assert scene.ctl.ok("encryption", "status")["enabled"] is True
    before = files(scene)
    # From here on, and not only once the slicer has begun anew, nothing is stored in clear.
    scene.client[DATABASE].secretledger.insert_one({"_id": "first"})
    eventually(
        lambda: any(str(p).endswith(".bson.zst.enc") for p in files(scene)),
        60.0,
        describe=scene.agents.log_tails,
    )
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
    assert len(sealed) >= 8  # two manifests with their chunks, and slices
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
    scene.client.drop_database(DATABASE)
    scene.restore(encrypted)
    names = set(scene.client[DATABASE].list_collection_names())
    assert set(COLLECTIONS) <= names
    scene.ctl.ok("delete-backup", whole, "-y", "--wait")
    no_backup_in_clear_can_be_slipped_in(scene, plain)


def no_backup_in_clear_can_be_slipped_in(scene: Scene, plain: str) -> None:
    """A copy of a backup that is as it should be, under another name: with digests that are right,
    and in clear, as whoever may write to the storage, and has no key, could make one."""
    forged = "2026-01-01T00:00:00Z"
    shutil.copytree(scene.repository / "backups" / plain, scene.repository / "backups" / forged)
    document = scene.repository / "backups" / forged / "backup.json"
    document.chmod(0o600)
    document.write_text(document.read_text().replace(f'"_id": "{plain}"', f'"_id": "{forged}"'))
    assert json.loads(document.read_text())["_id"] == forged
    resynced = scene.ctl.ok("config", "--force-resync", "--wait", within_s=60.0)
    assert forged in resynced["unreadable"]
    listed = {row["name"]: row["encrypted"] for row in scene.ctl.ok("list")["snapshots"]}
    assert forged not in listed
    assert set(listed.values()) == {True, False}
    before = scene.fingerprint()
    refused = scene.try_restore(forged)
    assert refused.status != 0
    assert "no backup named" in str(refused.value["error"])
    assert "is in clear" in scene.agents.all[0].log_text()
    assert not diff(before, scene.fingerprint())
    assert scene.ctl.ok("verify", plain, "--wait")["harmed"] == 0


def kms(operation: str, **request: Any) -> Any:
    """A request to the key management service, as its owner makes it."""
    client = botocore.session.get_session().create_client(
        "kms",
        region_name="eu-central-1",
        endpoint_url=shared_moto().url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    return getattr(client, operation)(**request)


def test_a_disabled_key_stops_everything_loudly_and_loses_nothing(
    scene: Scene, tmp_path: Path
) -> None:
    made = kms("create_key")["KeyMetadata"]["KeyId"]
    kms("create_alias", AliasName=f"alias/{made[:8]}", TargetKeyId=made)
    service = ("--region", "eu-central-1", "--endpoint-url", shared_moto().url)
    enable(scene, "--provider", "aws-kms", "--key-id", f"alias/{made[:8]}", *service)
    scene.enable_pitr(1.0)
    write(scene, 0, 20)
    first, second = scene.backup()["name"], scene.backup()["name"]
    wanted = scene.fingerprint()

    kms("disable_key", KeyId=made)
    sentence = scene.ctl.fails(1, "backup", "--wait", within_s=120)
    assert made in sentence
    assert "is disabled" in sentence
    write(scene, 20, 20)
    touched = scene.fingerprint()
    refused = scene.try_restore(first)
    assert refused.status == 1, str(refused)
    assert "is disabled" in str(refused.value["error"])
    assert not diff(touched, scene.fingerprint())
    assert len(scene.ctl.ok("list")["snapshots"]) == 2
    assert scene.ctl.ok("describe-backup", first)["encryption"]["keys"]
    scene.ctl.ok("delete-backup", second, "-y", "--wait")
    told = scene.ctl.ok("encryption", "status", "--probe")["repositories"][0]
    assert "is disabled" in told["problem"]
    # A slicer that begins anew asks for the key at once; one at work within five minutes.
    log = scene.agents.all[0].log_text
    started = log().count("slicer.started")
    scene.ctl.ok("config", "--set", "backup.compressionLevel=2")
    eventually(lambda: log().count("slicer.started") > started, 40.0)
    write(scene, 40, 20)
    touched = scene.fingerprint()
    eventually(
        lambda: any("is disabled" in str(run.get("error")) for run in scene.runs()),
        60.0,
        describe=scene.agents.log_tails,
    )

    kms("enable_key", KeyId=made)
    at = held_moment(scene)
    scene.wait_covered(at)
    assert not scene.gaps()
    given = ("--provider", "passphrase", "--passphrase-env", "BACKUP_PASSPHRASE", "--keep")
    before = scene.listing()
    rotated = scene.ctl.ok("encryption", "rotate", *given, "-y", "--wait")
    assert rotated["rewrapped"] >= 2
    (told,) = scene.ctl.ok("encryption", "status")["repositories"]
    assert all(len(key["keks"]) == 2 for key in told["data_keys"]), told
    assert first in {name for key in told["data_keys"] for name in key["backups"]}
    assert before.items() <= scene.listing().items()
    assert "already" in scene.ctl.fails(3, "encryption", "enable", *given[:-1], "-y", "--wait")
    kms("disable_key", KeyId=made)
    scene.restore("--time", f"{at[0]},{at[1]}")
    assert not diff(touched, scene.fingerprint())
    scene.restore(first)
    assert not diff(wanted, scene.fingerprint())
    kms("enable_key", KeyId=made)
    for agent in scene.agents:
        agent.terminate()
    follow_the_page(scene, tmp_path / "steps", first, made)


def follow_the_page(scene: Scene, directory: Path, backup: str, key: str) -> None:
    """Every step of the page, as it stands there, in a bare environment; nothing of ours runs. What
    comes out is what the database held."""
    directory.mkdir()
    (directory / "tidelog_decrypt.py").write_text((DOCS / "tidelog_decrypt.py").read_text())
    (directory / "passphrase").write_text(PASSPHRASE + "\n")
    make_bare(directory / "tools")
    shim = directory / "bin" / "aws"
    shim.parent.mkdir()
    shim.write_text(AWS.format(python=sys.executable, url=shared_moto().url))
    shim.chmod(0o755)
    page = (DOCS / "encryption.md").read_text().partition("\n## Without Tidelog")[2]
    tools, copy, which, decrypt, hexadecimal, by_key, by_passphrase, _ = steps(page)
    assert "pip install cryptography" in tools  # `make_bare` does it, without a network
    environment = {
        "PATH": f"{shim.parent}:/usr/bin:/bin",
        "REPOSITORY": str(scene.repository),
        "BACKUP": backup,
    }
    for block in (copy, which, decrypt, hexadecimal, by_key):
        run(block, directory, environment)
    shutil.move(directory / "dump", directory / "dump-by-kms")
    shutil.rmtree(directory / "copy")
    for block in (copy, by_passphrase):
        run(block, directory, environment)
    for dump in ("dump-by-kms", "dump"):
        root = directory / dump / backup / scene.replset.name
        found = [
            document["value"]
            for document in bson.decode_all(
                (root / DATABASE / f"{COLLECTIONS[0]}.bson").read_bytes()
            )
        ]
        assert sorted(found) == sorted(MARKERS[:20])
        described = json.loads((root / DATABASE / f"{COLLECTIONS[0]}.metadata.json").read_text())
        assert [index["name"] for index in described["indexes"]] == ["_id_", "hushedindex"]
        assert (root / "oplog.bson").exists()
    assert len(list((directory / "dump").iterdir())) >= 1
    assert key in (directory / "kek").read_text()


DOCS = Path(__file__).parents[2] / "docs"
AWS = """#!{python}
import base64, json, sys
import botocore.session
given = dict(zip(sys.argv[3::2], sys.argv[4::2]))
assert sys.argv[1:3] == ["kms", "decrypt"], sys.argv
assert (given["--query"], given["--output"]) == ("Plaintext", "text")
client = botocore.session.get_session().create_client(
    "kms", region_name="eu-central-1", endpoint_url="{url}",
    aws_access_key_id="test", aws_secret_access_key="test")
answer = client.decrypt(
    KeyId=given["--key-id"],
    CiphertextBlob=open(given["--ciphertext-blob"].removeprefix("fileb://"), "rb").read(),
    EncryptionContext=json.load(open(given["--encryption-context"].removeprefix("file://"))))
print(base64.b64encode(answer["Plaintext"]).decode())
"""


def steps(page: str) -> list[str]:
    """The shell blocks of the page, in order."""
    found = re.findall(r"^( *)```sh\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


def run(block: str, directory: Path, environment: dict[str, str]) -> None:
    """One block in a shell."""
    done = subprocess.run(
        ["bash", "-euc", block],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


def make_bare(directory: Path) -> None:
    """A virtual environment with `cryptography` and what it needs, and nothing else."""
    venv.create(directory, symlinks=True)
    (target,) = directory.glob("lib/python*/site-packages")
    (source,) = {Path(cryptography.__file__).parents[1]}
    for name in ("cryptography", "cffi", "pycparser"):
        if (source / name).exists():
            shutil.copytree(source / name, target / name)
    for native in source.glob("_cffi_backend*"):
        shutil.copy(native, target)


def test_an_agent_with_another_passphrase_is_named_before_a_backup_begins(
    three_nodes: ReplicaSet, tmp_path: Path
) -> None:
    agents = Agents(three_nodes, extra=AROUND)
    wrong = agents.all[1]
    wrong.extra["BACKUP_PASSPHRASE"] = "another horse battery staple"
    with agents:
        scene = Scene(three_nodes, agents, Ctl(three_nodes.uri()), tmp_path / "repository")
        scene.open()
        # Whoever leads needs the passphrase that the others have; the wrong one may be it.
        done = scene.ctl.run(
            "encryption", "enable", "--provider", "passphrase", "--passphrase-env",
            "BACKUP_PASSPHRASE", "-y", "--wait", within_s=120,
        )  # fmt: skip
        assert done.status == 0, str(done)
        said = {agent["host"]: agent for agent in scene.ctl.ok("encryption", "status")["agents"]}
        assert len({agent["fingerprint"] for agent in said.values()}) >= 1
        assert any(agent["error"] for agent in said.values())
        sentence = scene.ctl.fails(3, "backup", "--wait", within_s=120)
        assert "has fingerprint" in sentence
        assert not scene.listing("chunks/")
        errors = {host for host, agent in said.items() if agent["error"]}
        assert errors in ({wrong.node.host}, set(said) - {wrong.node.host})
