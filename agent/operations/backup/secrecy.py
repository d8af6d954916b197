"""What of an encrypted backup's own document is not for everybody: the namespaces it is limited to.

They are sealed into `backup.json` with the rest of the document as associated data, so that the
document cannot be changed unseen either. Two leads that publish the same backup must write the same
bytes: the salt, and so the key, is made of what is sealed, by HMAC under the data key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agent.archive.envelope import SALT_BYTES, nonce, object_key
from agent.archive.layout import ENCRYPTED_VERSION, backup_key
from agent.archive.vault import keyring_of, write_for
from agent.archive.wraps import check_usable
from agent.errors import ConfigError, IntegrityError, KeyUnusable, NodeUnavailable, Refused
from agent.operations.context import LeadContext
from agent.storage.base import Storage
from agent.wire.backups import Backup
from agent.wire.encryption import BackupEncryption, canonical
from agent.wire.nodes import NodeStatus
from agent.wire.operations import Operation

_PURPOSE: Final = b"tidelog backup.json v2\0"
CHECKED_WITHIN_S: Final = 30.0


async def prepare_key(
    lead: LeadContext, storage: Storage, operation: Operation, *, is_alone: bool
) -> None:
    """Make the data key of a backup, if the repository is encrypted: a key that cannot be used, or
    an agent that has another one, fails the backup before it begins. Of several storages none
    `is_alone`: the key has to be in all of them, and whoever writes to all makes it. Raises
    `KeyUnusable`."""
    keyring = await write_for(storage, "backup", operation.id)
    if keyring is None:
        return
    policy = await keyring.policy(fresh=True)
    assert policy is not None
    await _await_agents(lead, policy.sha256)
    try:
        if is_alone:
            await keyring.writing_key(backup_key(operation.name))
        else:
            await check_usable(keyring.provider(policy.keks[0]), policy.keks[0])
    except KeyUnusable as error:
        raise KeyUnusable(
            f"the backup {operation.name} cannot be encrypted: {error.message}",
            hint=error.hint,
        ) from error


async def _await_agents(lead: LeadContext, policy: str) -> None:
    """Every live agent has proven the keys of this policy. Raises `Refused` naming one that has
    not."""
    clock = lead.services.clock
    end = clock.monotonic() + CHECKED_WITHIN_S
    while True:
        live = await lead.services.nodes.live()
        bad = [node for node in live if node.key_error is not None]
        late = [node for node in live if policy not in node.key_policies]
        if not bad and not late:
            return
        is_told = all(policy in node.key_policies for node in bad)
        if clock.monotonic() >= end or (bad and is_told):
            if bad:
                raise Refused(
                    "the keys of the encryption cannot be used everywhere: " + _told(bad),
                    hint="give every agent the same key; 'ctl encryption status' compares them",
                )
            raise NodeUnavailable(
                f"{late[0].host} has not checked the keys of the encryption yet",
                hint="look at its log; an agent of an older version cannot",
            )
        await clock.sleep(0.5)


def _told(nodes: list[NodeStatus]) -> str:
    return "; ".join(
        f"{node.host} has fingerprint {node.key_fingerprint or 'none'}: {node.key_error}"
        for node in nodes
    )


async def sealed(storage: Storage, backup: Backup, key_ids: set[str]) -> Backup:
    """The document to publish; as it is where nothing is encrypted."""
    keyring = keyring_of(storage)
    if keyring is None or not key_ids:
        return backup
    records = [await keyring.record(key_id) for key_id in sorted(key_ids)]
    described = BackupEncryption(
        key_ids=tuple(sorted(key_ids)),
        encrypted_at=min(record.created_at for record in records),
        keys=tuple(records),
    )
    private = canonical({"ns": backup.ns, "exclude_ns": backup.exclude_ns})
    public = backup.model_copy(
        update={
            "format_version": ENCRYPTED_VERSION,
            "ns": (),
            "exclude_ns": (),
            "selective": backup.is_selective,
            "encryption": described,
        }
    )
    data_key = await keyring.data_key(described.key_ids[0])
    associated = canonical(public.to_json())
    salt = hmac.digest(data_key, _PURPOSE + associated + b"\0" + private, hashlib.sha256)
    salt = salt[:SALT_BYTES]
    box = _cipher(data_key, salt, backup).encrypt(nonce(0, True), private, associated)
    text = base64.b64encode(salt + box).decode()
    return public.model_copy(update={"encryption": described.model_copy(update={"sealed": text})})


async def unsealed(storage: Storage, backup: Backup, data: bytes) -> Backup:
    """A published backup with what is sealed in it; `data` is its document as stored. Raises
    `IntegrityError` where it was changed, `KeyUnusable` without its key."""
    if backup.encryption is None:
        return backup
    keyring = keyring_of(storage)
    if keyring is None:
        raise ConfigError(f"the backup {backup.id} is encrypted, and there are no keys here")
    raw: dict[str, Any] = json.loads(data)
    raw["encryption"]["sealed"] = ""
    data_key = await keyring.data_key(backup.encryption.key_ids[0])
    try:
        box = base64.b64decode(backup.encryption.sealed)
        cipher = _cipher(data_key, box[:SALT_BYTES], backup)
        private = json.loads(cipher.decrypt(nonce(0, True), box[SALT_BYTES:], canonical(raw)))
    except (InvalidTag, ValueError) as error:
        raise IntegrityError(
            f"{backup_key(backup.id)} on {storage.address} is not what was written"
        ) from error
    return backup.model_copy(
        update={"ns": tuple(private["ns"]), "exclude_ns": tuple(private["exclude_ns"])}
    )


def _cipher(data_key: bytes, salt: bytes, backup: Backup) -> AESGCM:
    return AESGCM(object_key(data_key, salt, backup_key(backup.id)))
