"""What a restore set aside on the target and did not live to take away.

While it runs, a restore keeps collections of its own there: users and roles before they are merged,
routing tables, collections under a name in between, where its replay stands. One that ends well
drops them itself. One that failed for good, was cancelled, or was given up while its worker was
dead cannot, so the agent of the primary does: when a restore that it saw is over, when it starts,
and every hour. It takes the work lease for it, so no restore is under way meanwhile, neither here
nor elsewhere, and a zombie's work has ended by itself.
"""

from __future__ import annotations

import re
from typing import Final

import structlog

from agent.coordination.lease import HeldLease
from agent.errors import Superseded, TidelogError, Transient
from agent.mongo.apply.structure import drop
from agent.mongo.node import Document, Node
from agent.mongo.translate import translated
from agent.operations.board import Board
from agent.operations.context import Services
from agent.wire.leases import work_scope
from agent.wire.namespaces import TEMPORARY
from agent.wire.operations import Kind

LOOK_EVERY_S: Final = 3600.0
AGAIN_S: Final = 5.0
LISTING_TIMEOUT_S: Final = 100.0

Found = list[tuple[str, bytes]]
log = structlog.stdlib.get_logger()


class LeftoverKeeper:
    """This agent's share: `run` is for the agent's task group."""

    def __init__(self, services: Services, board: Board) -> None:
        self._services = services
        self._board = board
        self._look = 0
        self._seen: set[str] = set()
        """Restores that were not over at the last look."""

    async def run(self) -> None:
        """Tidy at once, after each restore, and every hour, for ever."""
        wait_s = 0.0
        while True:
            await self._until_one_is_over(wait_s)
            try:
                is_tidy = await self.tidy()
            except Superseded as error:
                log.info("restore.leftovers_kept", error=str(error))
                is_tidy = False
            except Transient as error:
                log.debug("restore.leftovers_kept", error=str(error))
                is_tidy = False
            except TidelogError as error:
                log.warning("restore.leftovers_kept", error=str(error), hint=error.hint)
                is_tidy = True
            wait_s = LOOK_EVERY_S if is_tidy else AGAIN_S

    async def tidy(self) -> bool:
        """Drop what is left over, if this node is the primary and nobody restores; whether nothing
        is left that this agent would have to drop. Raises `TidelogError`."""
        services = self._services
        if not (await services.node.hello()).is_primary or not await left_behind(services.node):
            return True
        if await self._is_restoring():
            return True  # its end is seen
        scope = work_scope(services.node.replset, Kind.RESTORE)
        lease = await services.leases.acquire(scope, services.node.id)
        if lease is None:
            return False
        async with services.holder.hold(lease) as held:
            if await self._is_restoring():
                return True
            await self._drop(held)
        return True

    async def _drop(self, held: HeldLease) -> None:
        node = self._services.node
        found = await left_behind(node)
        for namespace, uuid in found:
            held.check()
            await drop(node, namespace, uuid)
        if found:
            log.info("restore.leftovers_removed", collections=[namespace for namespace, _ in found])

    async def _until_one_is_over(self, at_most_s: float) -> None:
        clock = self._services.clock
        end = clock.monotonic() + at_most_s
        while (left_s := end - clock.monotonic()) > 0:
            await self._board.after(self._look, at_most_s=left_s)
            self._look = self._board.look
            active = {o.id for o in self._board.operations.values() if o.kind.writes_data}
            over, self._seen = self._seen - active, active
            if over:
                return

    async def _is_restoring(self) -> bool:
        active = await self._services.operations.active()
        return any(operation.kind.writes_data and not operation.queued for operation in active)


async def left_behind(node: Node) -> Found:
    """Name and UUID of each temporary collection on the node. Raises `NodeUnavailable`."""
    found: Found = []
    with translated("looking for what a restore left behind"):
        listed = await node.command(
            "admin", {"listDatabases": 1, "nameOnly": True}, timeout_s=LISTING_TIMEOUT_S
        )
        # Nothing of ours is ever in the servers' own, and the agents' user may not list them.
        names = {one["name"] for one in listed["databases"]} - {"config", "local"}
        for database in sorted(names):
            command: Document = {
                "listCollections": 1,
                "filter": {"name": {"$regex": f"^{re.escape(TEMPORARY)}"}, "type": "collection"},
                "cursor": {"batchSize": 1_000_000},
            }
            reply = await node.command(database, command, timeout_s=LISTING_TIMEOUT_S)
            found += [
                (f"{database}.{one['name']}", bytes(one["info"]["uuid"]))
                for one in reply["cursor"]["firstBatch"]
            ]
    return found
