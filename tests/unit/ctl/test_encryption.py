"""`encryption`, `genkey`, `decrypt`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agent.wire.encryption import BackupEncryption, DataKeyRecord, Kek, Policy, Witness
from agent.wire.operations import Kind
from tests.support.vaults import NOW
from tests.unit.ctl.world import Ctl, backup, node

KEK = Kek(id="0" * 12, provider="passphrase", key="from file /p", fingerprint="f" * 16)


def test_a_key_has_64_characters_and_is_another_each_time(ctl: Ctl) -> None:
    first, second = ctl("genkey").out.strip(), ctl("genkey").out.strip()
    assert len(bytes.fromhex(first)) == 32
    assert first != second


def test_enabling_says_what_follows_and_takes_no_for_an_answer(ctl: Ctl) -> None:
    outcome = ctl("encryption", "enable", "--provider", "keyfile", "--keyfile", "/k")
    assert outcome.code == 3
    assert "has to be confirmed" in outcome.err
    assert not ctl.world.operations


def test_enabling_asks_for_it_with_references_only(ctl: Ctl) -> None:
    given = ("--passphrase-file", "/etc/p", "--option", "n=16384", "--strict", "-y")
    assert ctl("encryption", "enable", "--provider", "passphrase", *given).code == 0
    (operation,) = ctl.world.operations
    assert operation.kind is Kind.ENCRYPTION
    assert operation.spec["options"] == {"passphrase": {"file": "/etc/p"}, "n": 16384}
    assert operation.spec["key_change"] == "forbid"


def test_a_rotation_may_keep_the_present_keys(ctl: Ctl) -> None:
    given = ("--key-id", "alias/b", "--region", "eu-west-1", "--keep", "-y")
    assert ctl("encryption", "rotate", "--provider", "aws-kms", *given).code == 0
    (operation,) = ctl.world.operations
    assert operation.spec["options"] == {"keyId": "alias/b", "region": "eu-west-1"}
    assert operation.spec["keep"] is True


def test_a_key_given_twice_is_refused(ctl: Ctl) -> None:
    given = ("--passphrase-file", "/etc/p", "--passphrase-env", "P", "-y")
    assert ctl("encryption", "enable", "--provider", "passphrase", *given).code == 2


def test_status_shows_keys_and_agents(ctl: Ctl) -> None:
    assert "not encrypted" in ctl("encryption", "status").out
    policy = Policy(
        number=1,
        repository_id="r",
        keks=(KEK,),
        created_at=NOW,
        since=NOW,
        authority=DataKeyRecord(key_id="a", repository_id="r", created_at=NOW, wraps=()),
    )
    ctl.world.witnesses = [Witness(id="encryption/r", address="file:///b", policy=policy)]
    ctl.world.nodes = [
        node("a:1").model_copy(update={"key_policies": (policy.sha256,), "key_fingerprint": "f"}),
        node("b:1").model_copy(update={"key_error": "has fingerprint x here"}),
    ]
    found = ctl("encryption", "status", "-o", "json").json
    assert found["repositories"][0]["keys"][0]["fingerprint"] == "f" * 16
    assert [agent["checked"] for agent in found["agents"]] == [True, False]
    assert "has fingerprint x here" in ctl("encryption", "status").out
    assert "encryption: has fingerprint" in ctl("status").out


@pytest.mark.parametrize("given", [(), ("--keyfile", "/nowhere")])
def test_decrypting_needs_a_key(ctl: Ctl, tmp_path: Path, given: tuple[str, ...]) -> None:
    assert ctl("decrypt", str(tmp_path), *given).code == 2


def test_what_cannot_be_decrypted_is_named(ctl: Ctl, tmp_path: Path) -> None:
    harmed = tmp_path / "x.bson.zst.enc"
    harmed.write_bytes(b"nothing of Tidelog's")
    outcome = ctl("decrypt", str(harmed), "--key-hex", "ab" * 32, "-o", "json")
    assert outcome.code == 1
    assert f"{harmed} does not begin as an object that Tidelog encrypted" in outcome.err
    assert outcome.json == {
        "decrypted": 0,
        "skipped": 0,
        "failed": 1,
        "error": "not everything could be decrypted; each object says why",
        "hint": "",
    }


@pytest.mark.parametrize("data", [b"", b"\x5d\x2a\x4d\x18\xff", b"\x5d\x2a\x4d\x18\x02\0\0\0{}"])
def test_a_file_that_is_no_object_is_said_to_be_none(ctl: Ctl, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "chunk.zst"
    path.write_bytes(data)
    outcome = ctl("decrypt", str(path), "--key-hex", "ab" * 32)
    assert outcome.code == 1
    assert "does not begin as an object that Tidelog encrypted" in outcome.err
    assert "*.enc" in outcome.err
    assert "error(" not in outcome.err


def test_a_directory_without_objects_is_said_to_hold_none(ctl: Ctl, tmp_path: Path) -> None:
    outcome = ctl("decrypt", str(tmp_path), "--key-hex", "ab" * 32)
    assert outcome.code == 1
    assert f"{tmp_path} holds no *.enc" in outcome.err


def test_where_nothing_is_encrypted_there_is_nothing_to_probe(ctl: Ctl) -> None:
    outcome = ctl("encryption", "status", "--probe", "-o", "json")
    assert (outcome.code, outcome.json["enabled"]) == (0, False)
    assert not ctl.world.operations


USES = ["kms:GenerateDataKey", "kms:Encrypt", "kms:Decrypt"]
LOOKS = ["kms:DescribeKey", "kms:TagResource"]


def test_the_rights_on_a_key_are_printed_and_no_more(ctl: Ctl) -> None:
    """D7, D20."""
    given = ("encryption", "policy", "-o", "json", "--provider")
    (statement,) = ctl(*given, "aws-kms", "--key-id", "arn:k").json["Statement"]
    assert statement == {"Effect": "Allow", "Action": USES + LOOKS, "Resource": "arn:k"}
    uses, looks, makes = ctl(*given, "aws-kms", "--key-id", "auto", "--repository", "r1").json[
        "Statement"
    ]
    assert uses == {
        "Effect": "Allow",
        "Action": USES,
        "Resource": "KEY-ARN",
        "Condition": {"StringEquals": {"kms:EncryptionContext:tidelog-repository": "r1"}},
    }
    assert (looks["Action"], "Condition" in looks) == (LOOKS, False)
    assert (makes["Action"], makes["Resource"]) == (["kms:CreateKey"], "*")
    found = ctl(*given, "aliyun-kms", "--key-id", "key-1").json
    assert found == {
        "Version": "1",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [*USES, *LOOKS, "kms:ListAliasesByKeyId"],
                "Resource": "acs:kms:*:*:key/key-1",
            }
        ],
    }
    assert ctl(*given, "keyfile").code == 2


def test_the_page_has_the_rights_that_are_printed(ctl: Ctl) -> None:
    page = (Path(__file__).parents[3] / "docs/encryption.md").read_text()
    (block,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    printed = ctl("encryption", "policy", "--provider", "aws-kms", "-o", "json").json
    assert json.loads(block) == printed


def test_the_list_says_which_backups_are_encrypted(ctl: Ctl) -> None:
    """D12."""
    plain = backup()
    ctl.world.backups = [plain]
    assert "ENCRYPTED" not in ctl("list").out
    described = BackupEncryption(key_ids=("backup-1",), encrypted_at=NOW)
    ctl.world.backups.append(backup("2026-02-28T11:00:00Z", encryption=described))
    rows = {row["name"]: row["encrypted"] for row in ctl("list", "-o", "json").json["snapshots"]}
    assert [rows[name] for name in sorted(rows)] == [False, True]
    assert "ENCRYPTED" in ctl("list").out
