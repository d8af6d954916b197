"""From a command to somebody who carries it out: what each agent does at each wake-up.

It looks once (what is not over, which leases are held), lets the next queued operation begin, and
starts what this agent may do and nobody does: lead an operation, work on the part of its replica
set. Whether it is the one is decided by the bid: all agents rank themselves alike, the best bids at
once, the others a moment later, the lease decides. Everything runs in one task group; a session
that fails leaves the agent running and the operation to the next bid.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from agent.coordination.election import bid_delay_s, rank, rank_leads
from agent.coordination.wakeup import Wakeup
from agent.errors import TidelogError, Transient
from agent.operations.board import Board
from agent.operations.context import OperationKind, Services
from agent.operations.lead import Lead
from agent.operations.machine import quietly, retry_delay_s
from agent.operations.worker import Worker, may_work
from agent.store.command_queue import CommandQueue
from agent.tasks import TaskGroup
from agent.wire.leases import Lease, lead_scope, work_scope
from agent.wire.nodes import NodeStatus
from agent.wire.operations import Kind, Operation, State

UNKNOWN_FOR_S: Final = 30.0
"""How long a request of a kind unknown here is left to agents that may know it."""
WAKE_WITHIN_S: Final = 1.0
LOOK_AGAIN_S: Final = 1.0
BYSTANDER_LOOKS_EVERY_S: Final = 0.25
"""How often, at most, an agent looks while others do all there is to do: less than the pause before
the second best bids, so that it hears in time that the best has. What it costs otherwise is felt by
the writes of the clients, since all agents read from one primary."""
PRUNE_EVERY_S: Final = 3600.0
_WORKABLE: Final = frozenset({State.ELECTING, State.PREPARING, State.RUNNING})

log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Bid:
    """Something this agent may do: one operation, under one lease."""

    operation: Operation
    scope: str
    attempts: int
    carry_out: Callable[[Bid, Lease], Awaitable[None]]

    @property
    def key(self) -> tuple[str, str]:
        """What there is only one session of at a time, and what is remembered of failures."""
        return self.scope, self.operation.id


def told_apart(ended: set[str], held: Mapping[str, Lease], node: str) -> tuple[set[str], set[str]]:
    """Of the scopes whose leases ended here: those that are free, and those that the leases, read
    before the end, still show as this node's. The next look tells of these."""
    unseen = {scope for scope in ended if scope in held and held[scope].owner == node}
    return ended - set(held), unseen


class Runner:
    """Carries out operations, in this agent."""

    def __init__(
        self,
        services: Services,
        kinds: Mapping[Kind, OperationKind],
        commands: CommandQueue,
        wakeup: Wakeup,
        *,
        lead_replset: str,
    ) -> None:
        self._services = services
        self._kinds = kinds
        self._commands = commands
        self._wakeup = wakeup
        self._may_lead = services.node.replset == lead_replset
        self._board = Board()
        self._sessions: dict[str, Bid] = {}
        self._failed_here: set[tuple[str, str]] = set()
        self._seen_at: dict[str, float] = {}
        self._pruned_at = services.clock.monotonic()
        self._is_draining = False
        self._freed: set[str] = set()
        """Scopes whose leases ended here, and that no look has shown to be free since."""

    @property
    def board(self) -> Board:
        """What was seen at the latest look."""
        return self._board

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs here that another agent would have to begin anew."""
        return not any(self._is_at_work(bid) for bid in self._sessions.values())

    def drain(self) -> None:
        """Begin nothing new; whoever waits to bid gives that up."""
        self._is_draining = True
        self._wakeup.wake()

    async def run(self) -> None:
        """Look at each wake-up, for ever."""
        async with TaskGroup() as group:
            while True:
                self._wakeup.clear()
                try:
                    await self._look(group)
                    next_s = self._next_lapse_s()
                except TidelogError as error:
                    # What woke us has not been seen, and nothing wakes us for it again.
                    next_s = LOOK_AGAIN_S if isinstance(error, Transient) else None
                    log.warning("runner.look_failed", error=str(error), hint=error.hint)
                looked_at = self._services.clock.monotonic()
                await self._wakeup.wait(next_s)
                if self._is_bystander():
                    passed_s = self._services.clock.monotonic() - looked_at
                    await self._services.clock.sleep(max(0, BYSTANDER_LOOKS_EVERY_S - passed_s))

    async def _look(self, group: TaskGroup) -> None:
        self._board.ask()
        operations = await self._services.operations.active()
        held = await self._services.leases.held() if operations else {}
        self._board.publish(operations, held)
        self._remember(operations)
        await self._tell_freed(operations, held)
        if not self._is_draining:
            if self._may_lead:
                await self._promote(operations)
            for bid in self._bids(operations, held):
                self._sessions[bid.scope] = bid
                group.create_task(self._session(bid), name=f"bid {bid.scope}")
        await self._prune(operations)

    async def _tell_freed(self, operations: list[Operation], held: Mapping[str, Lease]) -> None:
        """Wake the others where one of them may take on what ended here. What is asked for from
        now on wakes them itself."""
        freed, self._freed = told_apart(self._freed, held, self._services.node.id)
        for operation in operations:
            if freed & set(self._open_scopes(operation)):
                await self._commands.wake(operation.id)
                return

    def _open_scopes(self, operation: Operation) -> list[str]:
        """The leases under which there is something left to do, here or in this replica set."""
        replset = self._services.node.replset
        part, scopes = operation.part(replset), []
        if self._may_lead:
            scopes.append(lead_scope(operation.kind))
        if part is not None and not part.state.is_terminal:
            scopes.append(work_scope(replset, operation.kind))
        return scopes

    def _is_bystander(self) -> bool:
        """Whether, at the latest look, other agents had taken on all there is to do."""
        operations, held = self._board.operations.values(), self._board.held
        node = self._services.node.id
        return bool(operations) and all(
            operation.parts
            and not operation.queued
            and all(
                scope in held and held[scope].owner != node
                for scope in self._open_scopes(operation)
            )
            for operation in operations
        )

    def _remember(self, operations: list[Operation]) -> None:
        """Since when we know of each; forget what is over."""
        now = self._services.clock.monotonic()
        self._seen_at = {o.id: self._seen_at.get(o.id, now) for o in operations}
        self._failed_here = {key for key in self._failed_here if key[1] in self._seen_at}

    async def _promote(self, operations: list[Operation]) -> None:
        queued = [operation for operation in operations if operation.queued]
        if queued and not any(operation.slot for operation in operations):
            await self._services.operations.promote_queued()

    async def _prune(self, operations: list[Operation]) -> None:
        now = self._services.clock.monotonic()
        if self._may_lead and not operations and now - self._pruned_at > PRUNE_EVERY_S:
            self._pruned_at = now
            await self._services.operations.prune()

    def _bids(self, operations: list[Operation], held: Mapping[str, Lease]) -> list[Bid]:
        """What nobody does and no session here bids for; one for each lease."""
        bids: dict[str, Bid] = {}
        for operation in operations:
            if operation.queued:
                continue
            for bid in (self._lead_bid(operation), self._work_bid(operation)):
                if bid is not None and bid.scope not in held and bid.scope not in self._sessions:
                    bids.setdefault(bid.scope, bid)
        return list(bids.values())

    def _lead_bid(self, operation: Operation) -> Bid | None:
        if not self._may_lead:
            return None
        if operation.kind not in self._kinds:
            known_for_s = self._services.clock.monotonic() - self._seen_at[operation.id]
            if operation.lead_epoch > 0 or known_for_s < UNKNOWN_FOR_S:
                return None
        scope = lead_scope(operation.kind)
        return Bid(operation, scope, operation.attempts, self._lead)

    def _work_bid(self, operation: Operation) -> Bid | None:
        replset = self._services.node.replset
        part = operation.part(replset)
        if part is None or part.state.is_terminal or operation.kind not in self._kinds:
            return None
        if operation.state not in _WORKABLE or operation.cancel_requested:
            return None
        return Bid(operation, work_scope(replset, operation.kind), part.attempts, self._work)

    async def _session(self, bid: Bid) -> None:
        """Bid and, if the lease is ours, carry it out. Others are woken when it is free again and
        there is something left for them."""
        try:
            await quietly(lambda: self._bid(bid), what=f"{bid.scope} of {bid.operation.id}")
        finally:
            del self._sessions[bid.scope]
            self._wakeup.wake()

    async def _bid(self, bid: Bid) -> None:
        delay_s = await self._delay_s(bid)
        if delay_s is None:
            # Not for this node; look again at the next poll, not at once.
            await self._services.clock.sleep(bid_delay_s(1))
            return
        if not await self._is_still_free(bid, delay_s):
            return
        if not await self._is_able(bid):
            await self._services.clock.sleep(bid_delay_s(1))
            return
        lease = await self._services.leases.acquire(bid.scope, self._services.node.id)
        if lease is None:
            return
        log.debug("lease.acquired", scope=bid.scope, epoch=lease.epoch)
        is_done = False
        try:
            await bid.carry_out(bid, lease)
            is_done = True
        finally:
            if is_done:
                self._freed.add(bid.scope)
            else:
                self._failed_here.add(bid.key)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WAKE_WITHIN_S):
                        await self._commands.wake(bid.operation.id)

    async def _is_still_free(self, bid: Bid, delay_s: float) -> bool:
        """Wait before bidding; whether nobody has taken it on meanwhile."""
        clock, look = self._services.clock, self._board.look
        end = clock.monotonic() + delay_s
        while (left_s := end - clock.monotonic()) > 0:
            await self._board.after(look, at_most_s=left_s)
            if self._board.look > look and not self._is_wanted(bid):
                return False
            look = self._board.look
        return not self._is_draining

    async def _is_able(self, bid: Bid) -> bool:
        """Whether the node is what the registry, some seconds ago, said that it was."""
        if bid.carry_out == self._lead:
            return True
        try:
            return await may_work(self._services, bid.operation.kind)
        except Transient:
            return False

    def _is_wanted(self, bid: Bid) -> bool:
        """Whether it is still to be done, by an agent that stays, and nobody does it."""
        is_open = bid.operation.id in self._board.operations and bid.scope not in self._board.held
        return is_open and not self._is_draining

    async def _delay_s(self, bid: Bid) -> float | None:
        """How long to wait before bidding; `None` if this node must not."""
        nodes = [node for node in await self._services.nodes.all() if self._is_member(node)]
        leading = bid.carry_out == self._lead
        ranking = rank_leads(nodes) if leading else rank(nodes, kind=bid.operation.kind)
        node = self._services.node.id
        if node not in ranking:
            return None
        position = ranking.index(node)
        if bid.key in self._failed_here and len(ranking) > 1:
            position = len(ranking)  # let the others try
        return bid_delay_s(position) + retry_delay_s(bid.attempts)

    def _is_member(self, node: NodeStatus) -> bool:
        return node.replset == self._services.node.replset

    async def _lead(self, bid: Bid, lease: Lease) -> None:
        async with self._services.holder.hold(lease) as held:
            lead = Lead(self._services, self._kinds, self._board, held, bid.operation)
            await lead.run()

    async def _work(self, bid: Bid, lease: Lease) -> None:
        kind = self._kinds[bid.operation.kind]
        async with self._services.holder.hold(lease) as held:
            await Worker(self._services, kind, self._board, held, bid.operation).run()

    def _is_at_work(self, bid: Bid) -> bool:
        """Unlike one that leads and waits for what workers of other agents do, which anybody goes
        on with at once."""
        if bid.carry_out == self._work:
            return True
        operation = self._board.operations.get(bid.operation.id, bid.operation)
        return all(part.state.is_terminal for part in operation.parts)

    def _next_lapse_s(self) -> float | None:
        """When the first of the held leases lapses unless it is renewed: worth a look."""
        remaining = [lease.remaining_s for lease in self._board.held.values()]
        return max(0.1, min(remaining) + 0.1) if remaining else None
