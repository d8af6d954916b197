"""What `ctl encryption status` shows: policies, keys, what they encrypt, what agents say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ctl.render import as_yaml, moment

if TYPE_CHECKING:
    from agent.wire.backups import Backup
    from agent.wire.encryption import Kek, Witness
    from agent.wire.nodes import NodeStatus


def status_of(
    witnesses: Sequence[Witness], backups: Sequence[Backup], nodes: Sequence[NodeStatus]
) -> dict[str, Any]:
    """Everything, as JSON values."""
    return {
        "enabled": bool(witnesses),
        "repositories": [_repository(witness, backups) for witness in witnesses],
        "agents": [
            {
                "host": node.host,
                "fingerprint": node.key_fingerprint,
                "checked": all(w.policy.sha256 in node.key_policies for w in witnesses),
                "error": node.key_error,
            }
            for node in nodes
        ],
    }


def _repository(witness: Witness, backups: Sequence[Backup]) -> dict[str, Any]:
    policy = witness.policy
    mine = [b for b in backups if b.repository_id == policy.repository_id]
    return {
        "address": witness.address,
        "algorithm": "AES-256-GCM",
        "since": moment(policy.since),
        "policy": policy.number,
        "key_change": policy.key_change,
        "keys": [_kek(kek, "in use") for kek in policy.keks]
        + [_kek(kek, "retired") for kek in policy.retired],
        "probed_at": moment(witness.probed_at) if witness.probed_at else None,
        "problem": witness.problem,
        "data_keys": [health.to_json() for health in witness.keys],
        "backups": [
            {
                "name": backup.id,
                "encrypted": backup.encryption is not None,
                "data_keys": list(backup.encryption.key_ids) if backup.encryption else [],
                "keys": sorted(
                    {w.kek.id for k in backup.encryption.keys for w in k.wraps}
                    if backup.encryption
                    else ()
                ),
            }
            for backup in mine
        ],
    }


def _kek(kek: Kek, state: str) -> dict[str, Any]:
    return {
        "id": kek.id,
        "provider": kek.provider,
        "key": kek.key,
        "alias": kek.alias,
        "fingerprint": kek.fingerprint,
        "state": state,
    }


def status_text(found: dict[str, Any]) -> str:
    """The same for a person."""
    if not found["enabled"]:
        return "The repository is not encrypted; 'ctl encryption enable' does it"
    return as_yaml(found)
