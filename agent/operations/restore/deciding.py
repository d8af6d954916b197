"""Finding out what became of transactions that are prepared at the moment restored to.

The rule is `agent.replay.decisions`; here the slices are found and read. All parts of a restore
must look at the same slices, or one could find what another does not, while archiving goes on. So
the lead notes once, before anything begins, how far the slices of each replica set reach, and every
part reads up to there, in the order of time, until it knows what it wants to know. That takes
nothing where nothing is prepared, and a slice or two where something is. Slices need not link: an
entry in any of them is one that the majority had.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from agent.archive.codec import in_thread
from agent.archive.layout import slices_prefix
from agent.operations.authenticity import may_be_in_clear, policy_of
from agent.operations.restore.plan import Plan
from agent.operations.restore.reading import frames
from agent.operations.slices import keys_after, read_slice_ref
from agent.replay.decisions import Decisions
from agent.replay.transactions import TransactionKey
from agent.storage.base import Storage
from agent.wire.optime import OpTime

EVIDENCE: Final = "evidence_until"
"""The field of the operation's result that says how far all parts look."""
LOOK_PAST_S: Final = 3600
"""How long after the moment restored to a decision is looked for. A transaction is decided within
milliseconds unless its coordinator is down."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What all parts look at."""

    storages: Sequence[Storage]
    ends: Mapping[str, OpTime]
    """By the replica set in the backup."""


def evidence_of(storages: Sequence[Storage], result: Mapping[str, Any]) -> Evidence | None:
    """What the lead pinned in the operation's result; None without shards."""
    pinned = result.get(EVIDENCE)
    if pinned is None:
        return None
    return Evidence(storages, {name: OpTime.from_document(end) for name, end in pinned.items()})


async def pin_evidence(storages: Sequence[Storage], plan: Plan) -> dict[str, dict[str, Any]]:
    """`{replica set in the backup: OpTime}` up to which all parts look."""
    limit = OpTime(T=plan.until.T + LOOK_PAST_S, I=0)
    found: dict[str, dict[str, Any]] = {}
    for share in plan.backup.replsets:
        end = plan.until
        for storage in storages:
            async with aclosing(_spans(storage, share.replset, plan.until)) as spans:
                async for _, start, after in spans:
                    if start > limit:
                        break
                    end = max(end, after)
        found[share.replset] = end.to_document()
    return found


async def find_decisions(
    evidence: Evidence, undecided: Mapping[TransactionKey, OpTime]
) -> Decisions:
    """What the slices up to the pinned ends say of some prepared transactions. Raises
    `IntegrityError`, `StorageUnavailable`."""
    decisions = Decisions(undecided)
    since = min(undecided.values())
    found: dict[str, tuple[OpTime, Storage]] = {}
    for storage in evidence.storages:
        for replset, end in evidence.ends.items():
            async with aclosing(_spans(storage, replset, since)) as spans:
                async for key, start, after in spans:
                    if start >= end:
                        break
                    if after <= end:
                        found[key] = start, storage
    for key, (_, storage) in sorted(found.items(), key=lambda item: (item[1][0], item[0])):
        if decisions.is_complete:
            break
        async for frame in frames(storage, await read_slice_ref(storage, key)):
            await in_thread(decisions.read, frame)
    return decisions


async def _spans(
    storage: Storage, replset: str, since: OpTime
) -> AsyncGenerator[tuple[str, OpTime, OpTime]]:
    """Key, start and end of the slices that end after `since`, ascending by day and start."""
    # A slice lies under the day of its end.
    policy = await policy_of(storage)
    after = f"{slices_prefix(replset)}{since.wall().strftime('%Y%m%d')}"
    async with aclosing(keys_after(storage, replset, since, after=after)) as found:
        async for item, span in found:
            if may_be_in_clear(item.key, policy):
                yield item.key, span.start, span.end
