"""A secret is a reference, sealed, or refused; it is shown by nothing (I10)."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agent.errors import ConfigError
from agent.keys.registry import open_provider
from agent.storage.surroundings import Surroundings
from agent.wire.sealing import SealingKey, secrets_of, storable
from agent.wire.secrets import Plain, Secret
from agent.wire.settings import Settings, dump_yaml, from_mapping, get_key, load_yaml, masked

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
KEY = SealingKey("k" * 44)
PATH = "storage.s3.credentials.secretAccessKey"


def settings(secret: str) -> Settings:
    return load_yaml(
        "storage: {type: s3, s3: {bucket: b, credentials: "
        f"{{accessKeyId: AKIA, secretAccessKey: {secret}}}}}}}"
    )


def fixed(size: int) -> bytes:
    return bytes(size)


def test_a_literal_is_shown_by_nothing() -> None:
    given = settings(SECRET)
    assert given.storage is not None
    shown = [
        *(str(given), repr(given), dump_yaml(given), given.model_dump_json(), str(masked(given))),
        *(json.dumps(given.to_document()), str(given.to_json()), str(get_key(given, PATH))),
        f"{given.storage.s3}",
    ]
    assert [text for text in shown if SECRET in text] == []
    assert "***" in dump_yaml(given)
    assert "AKIA" in dump_yaml(given)


def test_an_error_beside_a_secret_does_not_repeat_it() -> None:
    with pytest.raises(ConfigError) as raised:
        load_yaml(
            "storage: {type: s3, s3: {bucket: b, credentials: "
            f"{{accessKeyId: [1], secretAccessKey: {SECRET}}}}}}}"
        )
    assert SECRET not in f"{raised.value}{raised.value.hint}"


@pytest.mark.parametrize(
    "reference",
    [{"env": "NAME"}, {"file": "/run/secrets/key"}, {"name": "aws-creds", "key": "SECRET_KEY"}],
)
def test_references_are_stored_and_shown_as_they_are(reference: dict[str, str]) -> None:
    given = settings(json.dumps(reference))
    stored = given.to_document()
    assert stored["storage"]["s3"]["credentials"]["secretAccessKey"] == reference
    assert Settings.from_document(stored) == given
    assert masked(given)["storage"]["s3"]["credentials"]["secretAccessKey"] == reference
    assert storable(given, None, fixed) is given


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("***", "when shown"),
        ("", "empty"),
        (12345, "quotes"),
        (["a"], "quotes"),
        ({"env": ""}, "no reference"),
        ({"env": 5}, "no reference"),
        ({"vault": "x"}, "no reference"),
        ({"file": "relative"}, "absolute"),
        ({"name": "..", "key": "x"}, "plain file names"),
        ({"name": "a", "key": "../x"}, "plain file names"),
        ({"env": "A", "file": "/b"}, "no reference"),
    ],
)
def test_what_is_neither_is_refused(written: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Secret.parse(written)


def test_a_literal_is_not_storable_without_a_key() -> None:
    with pytest.raises(ConfigError, match=PATH) as raised:
        storable(settings(SECRET), None, fixed)
    assert SECRET not in f"{raised.value}{raised.value.hint}"
    assert "TIDELOG_SECRET_KEY_FILE" in raised.value.hint


def test_a_sealed_literal_is_stored_and_opens_with_the_key_only() -> None:
    sealed = storable(settings(SECRET), KEY, fixed)
    stored = sealed.to_document()
    assert SECRET not in json.dumps(stored)
    read = Settings.from_document(stored)
    ((path, secret),) = [(path, each) for path, each in secrets_of(read)]
    assert path == PATH
    assert KEY.open(secret) == SECRET
    assert masked(read)["storage"]["s3"]["credentials"]["secretAccessKey"] == "***"
    assert secret.value not in f"{secret} {secret!r} {read}"
    with pytest.raises(ConfigError, match="this host has key"):
        SealingKey("x" * 44).open(secret)


def test_a_changed_sealed_secret_is_refused() -> None:
    sealed = KEY.seal(Secret("literal", SECRET), bytes(12))
    head, _, text = sealed.value.rpartition(":")
    flipped = text[:30] + ("A" if text[30] != "A" else "B") + text[31:]
    for broken in (f"{head}:{flipped}", f"{head}:{text[:20]}", f"{head}:!"):
        with pytest.raises(ConfigError, match="changed or cut"):
            KEY.open(Plain("sealed", broken))


def test_settings_that_are_changed_keep_what_is_sealed() -> None:
    sealed = storable(settings(SECRET), KEY, fixed)
    again = from_mapping({**sealed.to_document(), "pitr": {"enabled": True}})
    assert storable(again, None, fixed) == again
    assert again.storage == sealed.storage


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="32") as raised:
        SealingKey("secret")
    assert "openssl" in raised.value.hint


async def test_one_generated_key_serves_for_settings_and_backups_and_is_another_key_for_each() -> (
    None
):
    text = "5f" * 32  # as `ctl genkey` prints one
    around = Surroundings(environment={"KEY": text})
    keyfile = open_provider("keyfile", {"keyfile": {"env": "KEY"}}, around)
    stretched = open_provider("passphrase", {"passphrase": {"env": "KEY"}, "n": 1 << 14}, around)
    sealing = SealingKey(text)
    fingerprints = {
        (await keyfile.kek()).fingerprint,
        (await stretched.kek()).fingerprint,
        sealing.fingerprint,
    }
    assert len(fingerprints) == 3
    stored = storable(settings(SECRET), sealing, fixed)
    (secret,) = [secret for path, secret in secrets_of(stored) if path == PATH]
    box = base64.b64decode(secret.value.rpartition(":")[2])
    for other in (bytes.fromhex(text), hashlib.sha256(text.encode()).digest()):
        with pytest.raises(InvalidTag):
            AESGCM(other).decrypt(box[:12], box[12:], b"tidelog sealed setting v1")
