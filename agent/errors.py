"""Every error Tidelog raises on purpose, as one tree; the branch decides what happens next.

    TidelogError                 message, hint
    ├─ ConfigError               our settings are wrong          → exit 2 / the command is refused
    ├─ Refused                   cannot be met now               → exit 3
    │   ├─ Conflict              another operation in progress
    │   ├─ NotFound              no such backup, operation, key  → exit 4
    │   ├─ TargetNotCovered      no coverage for the asked time
    │   └─ UnsupportedVersion    newer document, format, command
    ├─ Transient                 try again                       → retried, else exit 1
    │   ├─ StoreUnavailable      the control database            → exit 5
    │   ├─ StorageUnavailable    the object storage
    │   ├─ NodeUnavailable       the mongod this agent serves
    │   ├─ KeyServiceUnavailable the key management service
    │   └─ Throttled             retry_after_s
    ├─ Permanent                 do not try again                → exit 1
    │   ├─ PermissionDenied
    │   │   └─ ObjectLocked      a retention policy keeps it: no fault of the storage
    │   ├─ StorageFull
    │   ├─ IntegrityError        what is stored is not what was written
    │   ├─ ObjectNotFound / ObjectExists
    │   ├─ KeyUnusable           disabled, deleted, denied, or another key
    │   ├─ OplogOverrun          the oplog no longer holds what is needed
    │   ├─ OplogForked           what was archived last was rolled back
    │   └─ RestoreFailed         the target refused what had to be written
    └─ Superseded                somebody else acts now          → stop quietly
        ├─ LeaseLost
        └─ OperationCancelled

The retry wrapper looks only at `Transient`, the operation machine only at the five branches, `ctl`
maps branches to exit codes. Edges (`storage`, `store`, `mongo`) translate vendor errors and chain
the cause; nothing above them catches a vendor exception.
"""

from __future__ import annotations

from collections.abc import Iterator


class TidelogError(Exception):
    """Something went wrong in Tidelog.

    `str()` is one lower-case sentence without a full stop that says what failed and where; `hint`
    says what a person can do next, and is empty where nobody can do anything.
    """

    hint: str = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint


class ConfigError(TidelogError):
    """The settings are wrong."""


class Refused(TidelogError):
    """The request cannot be met now."""


class Conflict(Refused):
    """Another operation in progress."""

    hint = "wait for it, cancel it, or add --queue"


class NotFound(Refused):
    """No such thing."""


class TargetNotCovered(Refused):
    """The wanted time is not covered by what is stored."""


class UnsupportedVersion(Refused):
    """Written by a version of Tidelog that this one does not know."""

    hint = "upgrade this agent"


class Transient(TidelogError):
    """It may work when tried again."""


class StoreUnavailable(Transient):
    """The control database does not answer."""

    hint = "check that the replica set has a primary and that the connection string is right"


class StorageUnavailable(Transient):
    """The storage does not answer."""


class KeyServiceUnavailable(Transient):
    """The key management service does not answer."""


class NodeUnavailable(Transient):
    """The mongod of this agent does not answer, or is in no state to be read."""


class Throttled(Transient):
    """The storage asks for fewer requests."""

    def __init__(
        self, message: str, *, retry_after_s: float = 1.0, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Permanent(TidelogError):
    """Trying again cannot help."""


class PermissionDenied(Permanent):
    """The credentials do not allow this."""


class ObjectLocked(PermissionDenied):
    """A lock or a retention policy of the storage keeps the object."""

    hint = "it can be deleted when its retention ends; until then nothing has to be done"


class StorageFull(Permanent):
    """No space left on the storage."""

    hint = "free space or enlarge the storage, then run the command again"


class IntegrityError(Permanent):
    """What is stored is not what was written."""

    hint = "restore from another backup, and find out what changed the object"


class ObjectNotFound(Permanent):
    """The storage holds no such object."""


class ObjectExists(Permanent):
    """The key is taken; Tidelog never writes a key twice."""


class KeyUnusable(Permanent):
    """A key cannot be used: disabled, to be deleted, gone, access denied, or another one."""

    hint = "'ctl encryption status' shows the keys; docs/runbook.md says what to do for each state"


class OplogOverrun(Permanent):
    """The oplog of the node no longer reaches back to where archiving has to go on."""

    hint = "enlarge the oplog (replSetResizeOplog), then take a new backup"


class OplogForked(Permanent):
    """What was archived last is not in the oplog any more: it was rolled back."""

    hint = "take a new backup; the old timeline stays restorable"


class RestoreFailed(Permanent):
    """The target refused something that the restore had to write."""


class Superseded(TidelogError):
    """Somebody else acts now; what this process was doing has to stop."""


class LeaseLost(Superseded):
    """The lease could not be renewed in time or has another owner."""


class OperationCancelled(Superseded):
    """A person cancelled the operation."""


_RANK: tuple[type[BaseException], ...] = (Superseded, Permanent, Refused, ConfigError, Transient)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The single errors inside nested exception groups, in order."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def root_cause(error: BaseException) -> BaseException:
    """The one error to record of a group: Superseded > Permanent > Refused > ConfigError >
    anything unexpected > Transient; the others of the group are added to it as notes."""

    def rank(leaf: BaseException) -> int:
        for position, kind in enumerate(_RANK):
            if isinstance(leaf, kind):
                # Transient comes last: an unexpected error beside it is the better explanation.
                return position if kind is not Transient else len(_RANK) + 1
        return len(_RANK)

    found = list(leaves(error))
    best = min(found, key=rank)
    for other in found:
        if other is not best and str(other) != str(best):
            best.add_note(f"also: {type(other).__name__}: {other}")
    return best
