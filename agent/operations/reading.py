"""What verification, proofs and exports have in common: they read what is stored, at leisure.

Such an operation has one part, of one replica set, which any of its agents may work on; so it has
progress and can be cancelled like a backup, and goes on elsewhere when its agent dies. Its
leases are its own: neither a backup nor a deletion waits for it. What it needs is protected as what
a restore reads is, or is looked at again when it has gone meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from agent.errors import ConfigError
from agent.operations.context import LeadContext, PartContext
from agent.operations.machine import watched
from agent.operations.removal.plan import check_not_doomed
from agent.operations.worker import WORK_WITHIN_S
from agent.wire.operations import EXPORTS, SCRATCH, Operation, Progress
from agent.wire.optime import OpTime

TELL_EVERY_S: Final = 1.2
SIGN_EVERY_S: Final = 20.0

_MISSING: Final = {
    SCRATCH: (
        "no agent has verify.scratchDir: a proof needs a directory to restore into",
        "set TIDELOG_VERIFY__SCRATCHDIR (or verify.scratchDir in the file given with --config) for"
        " one of them, and start it anew",
    ),
    EXPORTS: (
        "no agent has export.directory and verify.scratchDir: an agent writes the export, on its"
        " own host, and only below the one, and restores into the other first",
        "set TIDELOG_EXPORT__DIRECTORY and TIDELOG_VERIFY__SCRATCHDIR for one of them, and start it"
        " anew",
    ),
}

T = TypeVar("T")


async def one_part(lead: LeadContext, operation: Operation) -> list[str]:
    """The replica set that gets the part: that of the lead, or else one whose agents have what the
    work takes, since config servers seldom stand on hosts that hold a shard's data. Raises
    `ConfigError` where no live agent has it."""
    own = lead.services.node.replset
    needed = operation.kind.needed_feature
    if needed is None:
        return [own]
    live = await lead.services.nodes.live()
    able = sorted({node.replset for node in live if needed in node.features})
    if not able:
        sentence, hint = _MISSING[needed]
        raise ConfigError(sentence, hint=hint)
    return [own if own in able else able[0]]


async def check_stays(lead: LeadContext, name: str, until: OpTime | None) -> None:
    """What is about to be read is there, and no deletion in progress means to remove it; one that
    begins later leaves it alone. Raises `NotFound`, `Conflict`."""
    backup = await lead.services.catalog.backup(name)
    active = await lead.services.operations.active()
    after = backup.last_write if until is not None else None
    check_not_doomed(active, backup=name, slices_after=after)


def result_of(operation: Operation) -> dict[str, Any]:
    """What the one part found: the result of the operation."""
    return dict(operation.parts[0].result)


class Steps:
    """How far the work on a part is, told while it goes on."""

    def __init__(self, part: PartContext) -> None:
        self._part = part
        self._progress = Progress()

    def enter(self, stage: str, *, bytes_total: int = 0, documents_total: int = 0) -> None:
        """Another stage begins."""
        self._progress = Progress(
            stage=stage, bytes_total=bytes_total, documents_total=documents_total
        )

    def add(self, *, bytes_done: int = 0, documents_done: int = 0) -> None:
        """So much more is done. Raises `LeaseLost`."""
        self._part.lease.check()
        before = self._progress
        self._progress = before.model_copy(
            update={
                "bytes_done": before.bytes_done + bytes_done,
                "documents_done": before.documents_done + documents_done,
            }
        )

    async def during(self, work: Callable[[], Awaitable[T]], *, what: str) -> T:
        """Do it and tell how far it is: a change soon, and now and then that it goes on at all,
        since a command of the server may take hours without a word."""
        found = await watched(work, self._tell, within_s=WORK_WITHIN_S, what=what)
        await self._part.report(self._progress)
        return found

    async def _tell(self) -> None:
        clock, told, told_at = self._part.services.clock, Progress(), 0.0
        while True:
            await clock.sleep(TELL_EVERY_S)
            now = clock.monotonic()
            if self._progress != told or now - told_at >= SIGN_EVERY_S:
                told, told_at = self._progress, now
                await self._part.report(told)
