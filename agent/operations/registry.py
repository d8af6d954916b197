"""All kinds of operations this agent carries out."""

from __future__ import annotations

from pathlib import Path

from agent.operations.adoption import AdoptKind
from agent.operations.backup.kind import BackupKind
from agent.operations.context import OperationKind
from agent.operations.encryption import EncryptionKind
from agent.operations.exporting.kind import ExportKind
from agent.operations.removal.holds import HoldKind
from agent.operations.removal.kinds import RemovalKind
from agent.operations.restore.kind import RestoreKind
from agent.operations.restore.onto import OplogReplayKind
from agent.operations.resync import ResyncKind
from agent.operations.scratch.place import Place
from agent.operations.verification.kind import VerifyKind
from agent.operations.verification.proving import ProveKind
from agent.wire.operations import Kind


def all_kinds(scratch: Place, exports: Path | None = None) -> dict[Kind, OperationKind]:
    """One object a kind; `scratch` is where this agent may start servers of its own, `exports`
    where it may write."""
    kinds: list[OperationKind] = [
        BackupKind(),
        RestoreKind(),
        OplogReplayKind(),
        RemovalKind(Kind.DELETE_BACKUP),
        RemovalKind(Kind.DELETE_PITR),
        RemovalKind(Kind.CLEANUP),
        HoldKind(),
        ResyncKind(),
        VerifyKind(),
        ProveKind(scratch),
        ExportKind(scratch, exports),
        AdoptKind(),
        EncryptionKind(),
    ]
    return {kind.kind: kind for kind in kinds}
