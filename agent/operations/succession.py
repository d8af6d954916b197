"""When the one that slices makes way for a better one.

Slicing moves when it must: its agent dies, its node goes. When all nodes are back it would stay
where it is, on the primary perhaps, where it costs the most. So the one that slices looks who else
could: a node that the election's rule puts clearly before its own, not by lag or name, and that
has been well for a while. Then it stores what it has read, and gives its lease up in order; whoever
comes next goes on from there, as always.

The better one may yet fail, by a storage that it alone cannot write to. Slicing that comes back
soon waits twice as long before it moves again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.clock import Clock
from agent.coordination.election import preferred_to
from agent.wire.nodes import NodeStatus

STEADY_S: Final = 20.0
"""How long the other has to be well and better, without a break."""
SOON_S: Final = 600.0
"""Slicing that is back earlier than this, after it moved, was not well where it went."""
MOST_S: Final = 3600.0
STEADY_LAG_S: Final = 5.0
"""Whoever is further behind archives later than the one that it would relieve."""


class Succession:
    """Whose turn it should be, as the one that slices sees it. One for the agent's whole life."""

    def __init__(self, own_id: str, clock: Clock) -> None:
        self._own_id = own_id
        self._clock = clock
        self._since: dict[str, float] = {}
        self._patience_s = STEADY_S
        self._left_at: float | None = None

    def begin(self) -> None:
        """It is this agent's turn from now on."""
        self._since = {}
        left, self._left_at = self._left_at, None
        if left is None or self._clock.monotonic() - left > SOON_S:
            self._patience_s = STEADY_S
        else:
            self._patience_s = min(2 * self._patience_s, MOST_S)

    def successor(self, candidates: Iterable[NodeStatus]) -> str | None:
        """Who should go on instead, if somebody should; asked again and again during a turn."""
        now = self._clock.monotonic()
        better = [node.id for node in preferred_to(self._own_id, candidates) if _is_well(node)]
        self._since = {node: self._since.get(node, now) for node in better}
        due = [node for node in better if now - self._since[node] >= self._patience_s]
        return next(iter(due), None)

    def leave(self) -> None:
        """This agent makes way."""
        self._left_at = self._clock.monotonic()


def _is_well(node: NodeStatus) -> bool:
    return (
        node.lag_s < STEADY_LAG_S
        and not node.errors
        and node.storage_error is None
        and node.key_error is None
    )
