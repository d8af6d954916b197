"""Who should do it: a pure choice over the heartbeats, the same on every agent.

Each agent ranks the nodes, the best bids for the lease at once, the next a moment later, and the
lease decides. So nobody has to agree on the ranking, and a best one that does not bid costs its
moment only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.wire.nodes import MAX_LAG_S, NodeStatus, Role
from agent.wire.operations import Kind

BID_STEP_S: Final = 0.4
MAX_BID_DELAY_S: Final = 4.0

_PRIORITY: Final = {Role.HIDDEN: 2.0, Role.SECONDARY: 1.0, Role.PRIMARY: 0.5}
"""By role, where no number is set. Other roles never do anything."""


def rank(nodes: Iterable[NodeStatus], *, kind: Kind | None = None) -> list[str]:
    """The ids of the nodes that may do it, the best first. A restore is done by the primary alone;
    a node of priority 0 or less is chosen for nothing that needs its data. What only reads what is
    stored is done by any live agent, or by those that have what it takes."""
    fit = [node for node in nodes if _is_fit(node, kind)]
    return [node.id for node in sorted(fit, key=_preference)]


def preferred_to(node_id: str, nodes: Iterable[NodeStatus]) -> list[NodeStatus]:
    """The nodes that may do it and come before this one by what lasts (a node far behind, roles,
    priorities), the best first; all of them where this one may not do it."""
    fit = sorted((node for node in nodes if _is_fit(node, None)), key=_preference)
    own = next((node for node in fit if node.id == node_id), None)
    return [node for node in fit if own is None or _standing(node) < _standing(own)]


def rank_leads(nodes: Iterable[NodeStatus]) -> list[str]:
    """The ids of the nodes that may lead an operation, the best first. Leading costs nothing and
    needs no data, so any live agent may; those that may do nothing else come last."""
    live = [node for node in nodes if node.is_live]
    return [node.id for node in sorted(live, key=_preference)]


def bid_delay_s(position: int) -> float:
    """How long the node at a place of the ranking (0 is the best) waits before it bids."""
    return min(position * BID_STEP_S, MAX_BID_DELAY_S)


def _is_fit(node: NodeStatus, kind: Kind | None) -> bool:
    if kind is not None and kind.only_reads:
        return node.is_live and (kind.needed_feature in (None, *node.features))
    if not node.is_live or node.role not in _PRIORITY:
        return False
    if kind is not None and kind.writes_data:
        return node.role is Role.PRIMARY
    return node.priority is None or node.priority > 0


def _preference(node: NodeStatus) -> tuple[bool, float, float, int, str]:
    """Smaller is better: caught up enough, of high priority, little lag, copied from by few (what
    these confirm to clients waits for the node that they copy from), and the id as the last word.
    Lag counts in steps of 5 s: less is noise between two heartbeats."""
    return (*_standing(node), node.lag_s // 5, node.copied_by, node.id)


def _standing(node: NodeStatus) -> tuple[bool, float]:
    priority = _PRIORITY.get(node.role, 0.0) if node.priority is None else node.priority
    return node.lag_s > MAX_LAG_S, -priority
