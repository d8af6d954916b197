"""All kinds of operations this agent carries out."""

from __future__ import annotations

from agent.operations.adoption import AdoptKind
from agent.operations.backup.kind import BackupKind
from agent.operations.context import OperationKind
from agent.operations.deletion import DeleteBackupKind
from agent.operations.encryption import EncryptionKind
from agent.operations.restore.kind import RestoreKind
from agent.operations.restore.onto import OplogReplayKind
from agent.operations.resync import ResyncKind
from agent.operations.verification.kind import VerifyKind
from agent.wire.operations import Kind


def all_kinds() -> dict[Kind, OperationKind]:
    """One object a kind."""
    kinds: list[OperationKind] = [
        BackupKind(),
        RestoreKind(),
        OplogReplayKind(),
        DeleteBackupKind(),
        ResyncKind(),
        VerifyKind(),
        AdoptKind(),
        EncryptionKind(),
    ]
    return {kind.kind: kind for kind in kinds}
