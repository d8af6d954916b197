"""Opening storages together with the keys that belong to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agent.archive.keyring import Custody
from agent.archive.vault import VaultStorage
from agent.storage.base import Storage
from agent.wire.settings import Settings

OpenStorage = Callable[[Settings, str], Awaitable[Storage]]


def with_keys(open_storage: OpenStorage, custody: Custody) -> OpenStorage:
    """The same, with keys."""

    async def opened(settings: Settings, profile: str) -> Storage:
        return VaultStorage(await open_storage(settings, profile), custody)

    return opened
