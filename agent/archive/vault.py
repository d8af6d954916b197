"""A repository's storage with its keys: what every agent reads and writes through.

It passes the seven verbs on and adds two things. Objects that hold data are refused in clear where
the repository's policy requires encryption, whoever writes them and whatever the control database
says. And `agent.archive.objects` finds the keys here, to seal and open objects with.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Final

from agent.archive.envelope import is_encrypted
from agent.archive.keyring import Custody, Keyring, Purpose
from agent.archive.layout import ENCRYPTED
from agent.errors import Refused
from agent.storage.base import ObjectInfo, Storage
from agent.storage.routed import Routed
from agent.storage.wrapping import WrappingStorage

_HOLDS_DATA: Final = re.compile(r"(chunks|slices|restores)/.*|backups/.*\.zst")
"""Keys of what must not be written in clear."""


class VaultStorage(WrappingStorage):
    """See the module. Closing it closes the storage inside."""

    def __init__(self, inner: Storage, custody: Custody) -> None:
        super().__init__(inner)
        self.keyring = Keyring(inner, custody)

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """See `Storage`. Raises `Refused` for what must be encrypted and is not."""
        if _HOLDS_DATA.fullmatch(key) and not is_encrypted(key) and await self.keyring.announced():
            raise Refused(
                f"{key} is not encrypted, and the repository at {self.address} takes nothing else",
                hint="'ctl encryption status' shows its policy, which cannot be taken back",
            )
        return await super().put(key, source, size_hint=size_hint)

    async def aclose(self) -> None:
        """See `Storage`."""
        await self.keyring.aclose()
        await super().aclose()


def keyring_of(storage: Storage, key: str | None = None) -> Keyring | None:
    """The keys that belong to a storage, or to the one of two in which an object lies; None where
    it was opened without."""
    if isinstance(storage, Routed):
        storage = storage.home_of(key)
    return storage.keyring if isinstance(storage, VaultStorage) else None


async def with_one_key(whole: Storage, storages: Sequence[Storage]) -> Storage:
    """Several storages written to as one get the same objects, so one data key, which lies in each
    of them: made as the first encrypted one among them wants it, and wrapped for the others."""
    found = [keyring_of(storage) for storage in storages]
    encrypted = [keyring for keyring in found if keyring and await keyring.policy() is not None]
    if not encrypted:
        return whole
    first, *others = encrypted
    vault = VaultStorage(whole, first.custody)
    vault.keyring.policies_at = first.storage
    vault.keyring.companions = others
    return vault


async def write_for(storage: Storage, kind: str, owner: str) -> Keyring | None:
    """Say what is going to be written: `kind` is `backup`, `pitr` or `restore`. Answers the keys
    where the repository is encrypted: from now on `stored_name` gives encrypted objects' names."""
    keyring = keyring_of(storage)
    if keyring is None or await keyring.policy() is None:
        return None
    keyring.purpose = Purpose(kind, owner)
    return keyring


def stored_name(storage: Storage, key: str) -> str:
    """The key under which an object is going to be stored: with `.enc` where it is sealed."""
    keyring = keyring_of(storage)
    is_sealing = keyring is not None and keyring.purpose is not None
    return key + ENCRYPTED if is_sealing else key


def sealed_by(storage: Storage, key: str) -> str | None:
    """The id of the data key that an object was just sealed with; None where it was not."""
    keyring = keyring_of(storage)
    return keyring.writing_key_id(key) if keyring is not None and is_encrypted(key) else None
