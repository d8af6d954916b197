"""Where backups lie, read for a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.wire.places import Places

if TYPE_CHECKING:
    from ctl.session import Session


async def read_places(session: Session) -> Places:
    """As it is now."""
    settings, _ = await session.settings.read()
    return Places(settings, await session.repositories.read())
