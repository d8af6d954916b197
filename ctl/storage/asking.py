"""Asking every live agent to try a storage now, and gathering what they answer."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.wire.storage_reports import (
    ANSWER_WITHIN_S,
    FEATURE,
    StorageCheckRequest,
    StorageReport,
)

if TYPE_CHECKING:
    from agent.wire.nodes import NodeStatus
    from ctl.session import Session

POLL_EVERY_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Answers:
    """What came, and from whom nothing did, with the reason as far as it is known."""

    reports: tuple[StorageReport, ...]
    silent: dict[str, str]


async def ask_all(
    session: Session,
    profile: str,
    *,
    measure_bytes: int = 0,
    within_s: float = ANSWER_WITHIN_S,
) -> Answers:
    """Ask, and wait until every live agent has answered or the time is up."""
    request = StorageCheckRequest(
        id=secrets.token_hex(8),
        profile=profile,
        measure_bytes=measure_bytes,
        at_s=(await session.control.now()).T,
    )
    await session.commands.ask(request)
    end = session.clock.monotonic() + within_s
    while True:
        nodes = await session.nodes.live()
        found = {node.id: report for node in nodes if (report := _answer(node, request.id))}
        silent = {
            node.id: "no answer in time"
            if FEATURE in node.features
            else "its agent is of a version that does not know this question"
            for node in nodes
            if node.id not in found
        }
        waited_for = [node for node in nodes if node.id in silent and FEATURE in node.features]
        if not waited_for or session.clock.monotonic() >= end:
            return Answers(tuple(found[name] for name in sorted(found)), silent)
        await session.clock.sleep(POLL_EVERY_S)


def _answer(node: NodeStatus, request_id: str) -> StorageReport | None:
    return next((report for report in node.reports if report.id == request_id), None)
