"""Whether what lies in a repository was written by somebody who may: the part that digests alone
cannot prove, since whoever writes objects can write digests.

Nothing is asked of a repository that is not encrypted. In an encrypted one a backup is either
sealed, and opens, or it is in clear and listed in the census, which the policy names. Slices are a
chain, and each link names the digest of the one before it: one link that is known to be right,
because it opens or is in the census, vouches for all before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Final

from agent.archive.census import Census, read_census
from agent.archive.codec import digest_of
from agent.archive.envelope import is_encrypted
from agent.archive.layout import SLICES, slice_span_of
from agent.archive.manifest import SliceRef
from agent.archive.objects import fetch, plain_frames
from agent.archive.vault import keyring_of
from agent.errors import IntegrityError
from agent.operations.inventory import published_names, read_document
from agent.operations.slices import keys_after, read_slice_ref
from agent.storage.base import Storage
from agent.wire.backups import Backup
from agent.wire.encryption import Policy

_HOUR_S: Final = 3600
SWITCHED_WITHIN: Final = timedelta(minutes=5)
"""Far longer than it takes until every agent has seen a first policy."""
_HINT: Final = (
    "somebody may have forged it. If it is yours, copy it into a repository that is not encrypted, "
    "and restore it from there"
)


async def take_census(storage: Storage, repository_id: str) -> Census:
    """All backups in clear, and of each replica set the last slice of each hour."""
    backups: dict[str, str] = {}
    for name in await published_names(storage):
        try:
            found = await read_document(storage, name)
        except IntegrityError:
            continue  # it cannot be restored as it is
        if found is not None and found[0].encryption is None:
            backups[name] = digest_of([found[1]])
    last: dict[tuple[str, int], str] = {}
    async for item in storage.list(SLICES):
        span = slice_span_of(item.key)
        if span is not None and not is_encrypted(item.key):
            last[item.key.split("/")[1], span[1].T // _HOUR_S] = item.key
    slices = {key: (await read_slice_ref(storage, key)).sha256 for key in last.values()}
    return Census(repository_id=repository_id, backups=backups, slices=slices)


async def check_in_clear(storage: Storage, backup: Backup, data: bytes) -> None:
    """A backup in clear is from before the repository was encrypted; `data` is its document as
    stored. Needs no key. Raises `IntegrityError`."""
    if backup.encryption is not None:
        return
    census = await read_census(storage)
    if census is not None and not census.has_backup(backup.id, digest_of([data])):
        raise IntegrityError(
            f"the backup {backup.id} at {storage.address} is in clear, and it was not there as it "
            "is when the repository was encrypted",
            hint=_HINT,
        )


async def prove_chain(storage: Storage, replset: str, chain: Sequence[SliceRef]) -> None:
    """Linked slices, the last of which was just read, are those that were archived. Raises
    `IntegrityError` naming one, `KeyUnusable` without its key."""
    census = await read_census(storage)
    if census is None or not chain:
        return
    last, first_unproven = chain[-1], chain[-1].key
    while not await _is_known(storage, last, census):
        following = await _following(storage, replset, last)
        if following is None:
            raise IntegrityError(
                f"{first_unproven} at {storage.address} is in clear, and nothing says that it was "
                "there when the repository was encrypted",
                hint="somebody may have forged it; choose an earlier moment, or one after "
                "encryption was enabled",
            )
        last = following


async def _is_known(storage: Storage, item: SliceRef, census: Census) -> bool:
    if not is_encrypted(item.key):
        return census.slices.get(item.key) == item.sha256
    data = await fetch(storage, item.key, size_bytes=item.size_bytes, sha256=item.sha256)
    async for _ in plain_frames(storage, data, item.key):
        pass  # it opens as a whole, so its header, which names the one before it, is right
    return True


async def _following(storage: Storage, replset: str, last: SliceRef) -> SliceRef | None:
    after = last.key.rpartition("/")[0]  # its day
    async with aclosing(keys_after(storage, replset, last.end, after=after)) as found:
        async for item, span in found:
            if span.start != last.end:
                continue
            ref = await read_slice_ref(storage, item.key)
            if ref.previous_sha256 == last.sha256:
                return ref
    return None


async def is_own(storage: Storage, ref: SliceRef) -> bool:
    """Whether a stored slice may be gone on from: in an encrypted repository, if it opens."""
    if await read_census(storage) is None:
        return True
    if not is_encrypted(ref.key):
        return False
    try:
        return await _is_known(storage, ref, Census(repository_id=""))
    except IntegrityError:
        return False


async def policy_of(storage: Storage) -> Policy | None:
    """What a repository says of its encryption, for whoever has no key."""
    keyring = keyring_of(storage)
    return None if keyring is None else await keyring.announced()


def may_be_in_clear(key: str, policy: Policy | None) -> bool:
    """Whether a slice may be in clear by what its key says: it began before the switch was over.
    A first look; `prove_chain` proves it."""
    if policy is None or is_encrypted(key):
        return True
    span = slice_span_of(key)
    return span is None or span[0].wall() <= policy.since + SWITCHED_WITHIN
