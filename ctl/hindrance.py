"""Why an operation does not move: nobody is there, or nobody leads. A pure function of what the
registry and the leases say, in server time."""

from __future__ import annotations

from dataclasses import dataclass

from agent.wire.leases import TTL_S, lead_scope
from agent.wire.nodes import NodeStatus
from agent.wire.operations import Operation
from ctl.render import duration


@dataclass(frozen=True, slots=True)
class Hindrance:
    """What stands in the way. It is worth a word after `grace_s`; a fatal one ends the waiting."""

    kind: str
    sentence: str
    grace_s: float = 0.0
    is_fatal: bool = False


def find_hindrance(
    operation: Operation, nodes: tuple[NodeStatus, ...], held_scopes: frozenset[str]
) -> Hindrance | None:
    """The worst thing that can be seen from here, if any."""
    if not nodes:
        return Hindrance("no agents", "no agent is running", is_fatal=True)
    if not any(node.is_live for node in nodes):
        last = min(nodes, key=lambda node: node.age_s)
        return Hindrance(
            "no live agent",
            f"no agent is alive; the last one, {last.id}, answered {duration(last.age_s)} ago",
            is_fatal=True,
        )
    if operation.queued:
        return None
    if lead_scope(operation.kind) not in held_scopes:
        return _without_lead(operation, nodes)
    return _lost_worker(operation, nodes)


def _without_lead(operation: Operation, nodes: tuple[NodeStatus, ...]) -> Hindrance:
    lead = next((node for node in nodes if node.id == operation.lead_node), None)
    if lead is None:
        # Between the command and the first lease lies one wake-up, or one poll.
        return Hindrance("no lead", "no agent has taken the lead yet", grace_s=TTL_S)
    last = operation.history[-1].note if operation.history else None
    if lead.is_live and last is not None and last.startswith("attempt "):
        # It has let go by itself, and somebody bids again after a pause.
        return Hindrance("attempt failed", f"{last}; it is tried again", 1.0)
    if lead.is_live:
        return Hindrance(
            "lead lost",
            f"the lead {lead.id} has lost its lease; another agent takes over",
            3.0,
        )
    return Hindrance(
        "lead dead",
        f"the lead {lead.id} is dead, it answered {duration(lead.age_s)} ago;"
        " another agent has to take over",
    )


def _lost_worker(operation: Operation, nodes: tuple[NodeStatus, ...]) -> Hindrance | None:
    ages = {node.id: node.age_s for node in nodes if not node.is_live}
    for part in operation.parts:
        if part.node in ages and not part.state.is_terminal:
            return Hindrance(
                f"worker dead {part.replset}",
                f"the agent on {part.node} is dead, it answered {duration(ages[part.node])} ago;"
                f" another agent of {part.replset} has to go on",
            )
    return None
