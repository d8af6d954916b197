"""What a worker that goes on from another's journal tells of: what it keeps, what it reads again.

The earlier worker said how much it had read, at most a second before it died; the journal says how
much of that is durable. The difference was in flight: the chunks of its readers, the bundles of its
planners, and what was stored while the journal's last entry was being written.
"""

from __future__ import annotations

from typing import Final

from agent.operations.context import PartContext
from agent.wire.operations import Progress

REREAD: Final = "reread_bytes"
"""Field of a part's result: BSON that was read more than once, over all its workers."""


def reread_bytes(told: Progress, kept: Progress) -> int:
    """What an earlier worker had read, by its own word, and did not make durable."""
    return max(0, told.bytes_done - kept.bytes_done)


async def tell_resumed(part: PartContext, kept: Progress, *, is_read: bool) -> None:
    """Write into the operation's history where this worker goes on from. `kept` is what the journal
    holds; with `is_read` that is everything, and only the oplog is still archived."""
    own = part.operation.part(part.replset)
    told = own.progress if own is not None else Progress()
    again = 0 if is_read else reread_bytes(told, kept)
    before = int(own.result.get(REREAD, 0)) if own is not None else 0
    await part.record(
        {REREAD: before + again},
        note=f"goes on from the journal: {kept.bytes_done} bytes kept, {again} bytes read again",
        # From here the next worker counts; what this one reads again would be told of twice.
        progress=told.model_copy(
            update={"bytes_done": kept.bytes_done, "documents_done": kept.documents_done}
        ),
    )
