"""`encryption`, `genkey`, `decrypt`."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.wire.encryption import DataKeyRecord, Kek, Policy, Witness
from agent.wire.operations import Kind
from tests.support.vaults import NOW
from tests.unit.ctl.world import Ctl, node

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
    outcome = ctl("decrypt", str(harmed), "--key-hex", "ab" * 32)
    assert outcome.code == 1
    assert str(harmed) in outcome.err
