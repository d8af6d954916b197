"""A restore begins another timeline: what was archived before it is not continued after it.

From when on the target is changed is noted where slicers look and, since the control database may
be lost with the target, in the repository. Both say it in the cluster's own time: the restore may
have been asked for long before, and have waited in line while backups were taken.
"""

from __future__ import annotations

from agent.operations.context import PartContext
from agent.operations.restore.state import StateKeeper


async def begin_timeline(part: PartContext, keeper: StateKeeper) -> None:
    """To be called before anything on the target is touched; again by whoever goes on. Raises
    `NodeUnavailable`, `StoreUnavailable`."""
    at = (await part.services.node.hello()).cluster_time
    await keeper.touch(at)
    await part.services.runs.seal(part.replset, at)
