"""What lay in clear in a repository when it was encrypted: all that may ever be in clear there.

Objects from before the switch stay as they are. So that nobody can put a backup in clear beside
them afterwards, the first policy names a list of them by digest. Backups are listed by the digest
of their `backup.json`, which names everything else. Slices are a chain, so the last one of each
hour says what those before it must be.
"""

from __future__ import annotations

from typing import Final

from pydantic import Field, ValidationError

from agent.archive.codec import digest_of
from agent.archive.keyring import Keyring
from agent.archive.layout import census_key
from agent.archive.objects import get_json, put_json
from agent.archive.vault import keyring_of
from agent.errors import IntegrityError, ObjectExists
from agent.storage.base import Storage, get_bytes
from agent.wire.encryption import CensusRef
from agent.wire.record import Record

_KNOWN_AT_MOST: Final = 8


class Census(Record):
    """See the module."""

    repository_id: str
    backups: dict[str, str] = Field(default_factory=dict)
    """`{name: SHA-256 of its backup.json}`."""
    slices: dict[str, str] = Field(default_factory=dict)
    """`{key: SHA-256}`."""

    def has_backup(self, name: str, sha256: str) -> bool:
        """Whether this document in clear is from before the switch."""
        return self.backups.get(name) == sha256


_known: dict[str, Census] = {}
"""Of this process, by digest: it never changes, and a resync asks for each backup."""


async def write_census(storage: Storage, census: Census) -> CensusRef:
    """Store it, under its own digest: another attempt that found the same has stored it."""
    text = census.model_dump_json()
    key = census_key(digest_of([text.encode()]))
    try:
        _, digest = await put_json(storage, key, text)
    except ObjectExists:
        digest = digest_of([await get_bytes(storage, key)])
        if await get_json(storage, key, sha256=digest) != text.encode():
            raise
    return CensusRef(key=key, sha256=digest)


async def read_census(storage: Storage, key: str | None = None) -> Census | None:
    """That of the repository in which an object lies; None where it is not encrypted, and so
    everything may be in clear. Raises `IntegrityError`. Needs no key where the policy is known."""
    keyring = keyring_of(storage, key)
    return None if keyring is None else await _census_of(keyring)


async def _census_of(keyring: Keyring) -> Census | None:
    policy = await keyring.announced()
    if policy is None:
        return None
    if policy.census is None:
        return Census(repository_id=policy.repository_id)
    digest = policy.census.sha256
    if digest not in _known:
        text = await get_json(keyring.storage, policy.census.key, sha256=digest)
        try:
            found = Census.model_validate_json(text)
        except ValidationError as error:
            raise IntegrityError(f"{policy.census.key} cannot be read") from error
        if len(_known) >= _KNOWN_AT_MOST:
            _known.clear()
        _known[digest] = found
    return _known[digest]
