"""Whether the parts of an operation are in good hands: the lead's deadlines for its workers.

A part without a worker is waited for while somebody can be expected to take it. A replica set that
has no agent fit for it fails the operation by name, soon; one whose agents do not take it, later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from agent.clock import Clock
from agent.coordination.election import rank
from agent.errors import NodeUnavailable
from agent.wire.leases import Lease, work_scope
from agent.wire.nodes import NodeStatus
from agent.wire.operations import Operation

NOBODY_FIT_S: Final = 30.0
NOT_TAKEN_S: Final = 120.0


class PartWatch:
    """Since when each part has had no worker, as one lead has seen it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._unowned_since: dict[str, float] = {}
        self._unfit_since: dict[str, float] = {}

    def has_waiting(self, operation: Operation, held: Mapping[str, Lease]) -> bool:
        """Whether any part has no worker now."""
        return any(
            not part.state.is_terminal and work_scope(part.replset, operation.kind) not in held
            for part in operation.parts
        )

    def check(
        self, operation: Operation, held: Mapping[str, Lease], nodes: Iterable[NodeStatus]
    ) -> None:
        """Raises `NodeUnavailable`, naming the replica set, when a part has waited too long."""
        now = self._clock.monotonic()
        registered = list(nodes)
        for part in operation.parts:
            replset = part.replset
            if part.state.is_terminal or work_scope(replset, operation.kind) in held:
                self._unowned_since.pop(replset, None)
                self._unfit_since.pop(replset, None)
                continue
            waited_s = now - self._unowned_since.setdefault(replset, now)
            members = [node for node in registered if node.replset == replset]
            if rank(members, kind=operation.kind):
                self._unfit_since.pop(replset, None)
            elif now - self._unfit_since.setdefault(replset, now) >= NOBODY_FIT_S:
                raise NodeUnavailable(_nobody(operation, replset, members), hint=_HINT)
            if waited_s >= NOT_TAKEN_S:
                raise NodeUnavailable(
                    f"no agent of replica set {replset} took its part of the {operation.kind}"
                    f" within {NOT_TAKEN_S:g} s",
                    hint=_HINT,
                )


_HINT: Final = "look at the agents with 'ctl status' and at their logs"


def _described(node: NodeStatus) -> str:
    barred = node.priority is not None and node.priority <= 0
    return f"{node.role}, priority 0" if barred else str(node.role)


def _nobody(operation: Operation, replset: str, members: list[NodeStatus]) -> str:
    live = [f"{node.host} ({_described(node)})" for node in members if node.is_live]
    text = f"replica set {replset} has no agent that can do the {operation.kind}"
    return f"{text}: alive are {', '.join(live)}" if live else f"{text}: none is alive"
