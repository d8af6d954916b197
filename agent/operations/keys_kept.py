"""The data keys of all that is kept: which there are, whether they unwrap, and their wraps.

A probe finds out today what a restore would find out in need: it unwraps every data key that a kept
backup or a slice depends on, each under the KEKs that hold it, and tells of keys that are disabled
or about to be deleted.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

import structlog

from agent.archive.keyring import Keyring
from agent.archive.layout import KEYS, key_id_of
from agent.archive.wraps import check_usable
from agent.errors import IntegrityError, TidelogError
from agent.operations.inventory import published_names, read_backup
from agent.wire.encryption import DataKeyRecord, Kek, KeyDescription, KeyHealth, Wrap

LISTED_KEYS: Final = 2000
"""More than this a document of the control database should not list; troubles come first."""

log = structlog.stdlib.get_logger()


async def kept_keys(keyring: Keyring) -> dict[str, tuple[str, ...]]:
    """Every data key on the storage, with the names of the backups that need it."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    async for item in keyring.storage.list(KEYS):
        key_id = key_id_of(item.key)
        if key_id is not None:
            found.setdefault(key_id, [])
    for name in await published_names(keyring.storage):
        try:
            backup = await read_backup(keyring.storage, name)
        except IntegrityError:
            continue  # what a resync and a restore say; no key is known of it
        if backup is not None and backup.encryption is not None:
            for key_id in backup.encryption.key_ids:
                found[key_id].append(name)
    return {key_id: tuple(names) for key_id, names in sorted(found.items())}


@dataclass
class Probe:
    """One look at all keys. KEKs are asked for their state once."""

    keyring: Keyring
    _states: dict[str, KeyDescription | TidelogError] = field(default_factory=dict)

    async def run(self) -> list[KeyHealth]:
        """The state of every key, those in trouble first. Missing wraps are made good."""
        found = [
            await self._health(key_id, names)
            for key_id, names in (await kept_keys(self.keyring)).items()
        ]
        found.sort(key=lambda health: (health.error is None, not health.warnings))
        return found[:LISTED_KEYS]

    async def _health(self, key_id: str, names: tuple[str, ...]) -> KeyHealth:
        try:
            record = await self.keyring.record(key_id)
        except TidelogError as error:
            return KeyHealth(key_id=key_id, backups=names, error=str(error))
        data_key: bytes | None = None
        warnings: list[str] = []
        for wrap in record.wraps:
            try:
                data_key = await self._unwrap(record, wrap)
            except TidelogError as error:
                warnings.append(str(error))
        if data_key is None:
            reasons = "; ".join(warnings) or "it has no wrap"
            return KeyHealth(key_id=key_id, backups=names, error=reasons)
        try:
            added = await self.keyring.add_wraps(record, data_key)
        except TidelogError as error:
            added = ()
            warnings.append(f"a wrap could not be added: {error}")
        return KeyHealth(
            key_id=key_id,
            backups=names,
            keks=(*(wrap.kek.id for wrap in record.wraps), *added),
            warnings=tuple(warnings),
        )

    async def _unwrap(self, record: DataKeyRecord, wrap: Wrap) -> bytes:
        state = await self.state(wrap.kek)
        if isinstance(state, TidelogError):
            raise state
        provider = self.keyring.provider(wrap.kek)
        return await provider.unwrap(base64.b64decode(wrap.ciphertext), record.context)

    async def state(self, kek: Kek) -> KeyDescription | TidelogError:
        """What its keeper says of a KEK, or why it cannot be used."""
        if kek.id not in self._states:
            try:
                provider = self.keyring.provider(kek)
                self._states[kek.id] = await provider.describe()
                await check_usable(provider, kek)
            except TidelogError as error:
                self._states[kek.id] = error
        return self._states[kek.id]


async def probe(keyring: Keyring) -> tuple[list[KeyHealth], str | None]:
    """Look at all keys of an encrypted repository, and write down what was found."""
    policy = await keyring.announced(fresh=True)
    if policy is None:
        return [], None
    found = await Probe(keyring).run()
    lost = [health for health in found if health.error is not None]
    weak = [health for health in found if health.error is None and health.warnings]
    problem: str | None = None
    if lost:
        problem = f"{len(lost)} data keys cannot be unwrapped: {lost[0].key_id}: {lost[0].error}"
    elif weak:
        problem = f"{len(weak)} data keys have a wrap that does not open: {weak[0].warnings[0]}"
    if problem is not None:
        names = sorted({name for health in lost for name in health.backups})
        log.error("encryption.key_in_danger", problem=problem, backups=names)
    log.info("encryption.probed", keys=len(found), unusable=len(lost))
    await keyring.custody.witnesses.note(policy.repository_id, found, problem)
    return found, problem
