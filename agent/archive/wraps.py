"""Wrapped data keys as they are stored under `keys/`, and the state of the keys they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import structlog
from pydantic import ValidationError

from agent.archive.layout import data_key_key, data_key_prefix
from agent.errors import (
    IntegrityError,
    KeyServiceUnavailable,
    KeyUnusable,
    ObjectNotFound,
    TidelogError,
)
from agent.keys.base import KeyProvider
from agent.storage.base import Storage, get_bytes
from agent.wire.encryption import DataKeyRecord, Kek, Policy

log = structlog.stdlib.get_logger()


def stored_record(record: DataKeyRecord) -> bytes:
    """As stored."""
    return record.model_dump_json(exclude_none=True, indent=1).encode()


def read_record(data: bytes, key_id: str) -> DataKeyRecord:
    """The reverse. Raises `IntegrityError`."""
    try:
        record = DataKeyRecord.model_validate_json(data)
    except ValidationError as error:
        raise IntegrityError(f"the wrapped key {key_id} cannot be read") from error
    if record.key_id != key_id:
        raise IntegrityError(f"the wrapped key {key_id} is another one: {record.key_id}")
    return record


async def stored_wraps(storage: Storage, key_id: str) -> DataKeyRecord:
    """A data key with all its wraps, those that rotations added included. Raises
    `IntegrityError` where there is none."""
    try:
        found = read_record(await get_bytes(storage, data_key_key(key_id)), key_id)
    except ObjectNotFound as error:
        raise IntegrityError(
            f"{data_key_key(key_id)} is missing from {storage.address}",
            hint="without it nothing that was encrypted with it can be read",
        ) from error
    wraps = list(found.wraps)
    async for item in storage.list(data_key_prefix(key_id)):
        if item.key != data_key_key(key_id):
            wraps += read_record(await get_bytes(storage, item.key), key_id).wraps
    return found.model_copy(update={"wraps": tuple(wraps)})


def trusted(record: DataKeyRecord, policies: Sequence[Policy]) -> DataKeyRecord:
    """Only the wraps under KEKs that the policies name, with the options that these give them:
    what stands beside a data key could send an agent to a key, a file or a service of somebody
    else's choice. Where there is no policy, as where a backup was copied to, all of them."""
    if not policies:
        return record
    known: Mapping[str, Kek] = {kek.id: kek for policy in policies for kek in policy.all_keks}
    foreign = sorted({wrap.kek.id for wrap in record.wraps} - set(known))
    if foreign:
        log.warning("encryption.foreign_wrap", key_id=record.key_id, keks=foreign)
    kept = tuple(
        wrap.model_copy(update={"kek": known[wrap.kek.id]})
        for wrap in record.wraps
        if wrap.kek.id in known
    )
    return record.model_copy(update={"wraps": kept})


async def check_usable(provider: KeyProvider, kek: Kek) -> None:
    """Ask for the state of a KEK before it is used. Raises `KeyUnusable` that names both."""
    found = await provider.describe()
    if not found.state.is_usable:
        when = f" at {found.deletion_at:%Y-%m-%dT%H:%M:%SZ}" if found.deletion_at else ""
        raise KeyUnusable(f"the {kek.label} is {found.state.value}{when}")


async def own_fingerprint(provider: KeyProvider, kek: Kek) -> str:
    """Of the key as this agent has it. Raises `KeyUnusable` where it is another one."""
    own = await provider.kek()
    if own.fingerprint != kek.fingerprint:
        raise KeyUnusable(
            f"the {kek.label} has fingerprint {own.fingerprint} here and should have "
            f"{kek.fingerprint}",
            hint="give this agent the key that all others have",
        )
    return own.fingerprint


def cannot_unwrap(what: str, errors: Iterable[TidelogError]) -> TidelogError:
    """Why no wrap opens: transient if one of them may open later."""
    found = list(errors)
    reasons = "; ".join(str(error) for error in found) or "no key of the repository wraps it"
    text = f"{what} cannot be unwrapped: {reasons}"
    if any(isinstance(error, KeyServiceUnavailable) for error in found):
        return KeyServiceUnavailable(text)
    return KeyUnusable(text)
