"""What the client may know of the storage: how it is configured, and what the agents say of it. It
never opens it itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agent.errors import Refused
from agent.wire.profiles import MAIN, names, storage_of
from agent.wire.settings import Settings

if TYPE_CHECKING:
    from agent.wire.nodes import NodeStatus
    from ctl.session import Session

VERDICT_WITHIN_S: Final = 8.0
"""Two heartbeats: a live agent has checked changed settings by then."""
_POLL_EVERY_S: Final = 0.25


async def require_storage(session: Session, profile: str = "main") -> Settings:
    """The settings, with the storage of that profile in them. Raises `Refused`, `NotFound`."""
    settings, _ = await session.settings.read()
    if profile == MAIN and settings.storage is None:
        raise Refused(
            "no storage is configured",
            hint="write one to a file and run 'ctl config --file storage.yaml'",
        )
    storage_of(settings, profile)
    return settings


async def require_a_storage(session: Session, profile: str | None) -> Settings:
    """The same where no profile need be named: any of them will do."""
    settings, _ = await session.settings.read()
    return await require_storage(session, profile or next(iter(names(settings)), MAIN))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one agent says of the storage; `error` is None where it works."""

    node: str
    is_current: bool
    """Whether it has checked these settings, and not earlier ones."""
    error: str | None

    @property
    def is_ok(self) -> bool:
        """Checked and found usable."""
        return self.is_current and self.error is None

    @property
    def sentence(self) -> str:
        """For a person."""
        if not self.is_current:
            return f"{self.node} has not found out yet; 'ctl status' soon says what it found"
        return f"{self.node}: {self.error or 'ok'}"

    def to_json(self) -> dict[str, Any]:
        """For a script."""
        return {"node": self.node, "ok": self.is_ok, "error": None if self.is_ok else self.sentence}


async def wait_for_verdicts(session: Session, version: int, profile: str = MAIN) -> list[Verdict]:
    """What the live agents say of the storage of these settings; waits a little for those that have
    not checked it yet. Empty where no agent is alive."""
    end = session.clock.monotonic() + VERDICT_WITHIN_S
    while True:
        verdicts = [_verdict(node, version, profile) for node in await session.nodes.live()]
        if all(verdict.is_current for verdict in verdicts) or session.clock.monotonic() >= end:
            return sorted(verdicts, key=lambda verdict: verdict.node)
        await session.clock.sleep(_POLL_EVERY_S)


def _verdict(node: NodeStatus, version: int, profile: str) -> Verdict:
    checked = node.storage_settings_version
    is_current = checked is not None and checked >= version
    error = node.storage_error if profile == MAIN else node.profile_errors.get(profile)
    return Verdict(node.id, is_current, error)
