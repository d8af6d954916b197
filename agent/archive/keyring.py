"""The data keys of one repository: made, wrapped, stored, found again and unwrapped.

A writer says what it writes for (`Purpose`); the first object it seals brings a data key about: one
that was made for the same purpose, by whoever went before, or a new one. What is stored of a key is
`keys/<key id>.json`, its wraps, before any object is sealed with it. A key in use is proven anew
every few minutes: a key that was disabled stops the writer soon and not years later a reader.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from agent.archive.authority import prove, wrap_of
from agent.archive.envelope import DataKey
from agent.archive.layout import KEYS, data_key_key, key_id_of, slice_day_of
from agent.archive.policies import read_policies
from agent.archive.wraps import (
    cannot_unwrap,
    check_usable,
    own_fingerprint,
    stored_record,
    stored_wraps,
    trusted,
)
from agent.clock import Clock
from agent.errors import (
    ConfigError,
    KeyServiceUnavailable,
    KeyUnusable,
    ObjectExists,
    TidelogError,
)
from agent.faults import fault_point
from agent.keys.base import KeyProvider
from agent.keys.registry import open_provider
from agent.storage.base import Storage, put_bytes
from agent.storage.surroundings import Surroundings
from agent.wire import keys as yaml_keys
from agent.wire.encryption import DataKeyRecord, Kek, KeyHealth, Policy, Wrap, wrap_context

TRUST_S: Final = 300.0
"""How long a data key is used for writing before it is proven anew."""
POLICY_AGE_S: Final = 30.0
"""How long a writer goes by the policy it has read."""
OPTIONS_VARIABLE: Final = "TIDELOG_KEY_OPTIONS_FILE"
"""Names a YAML file of this host with options that go before those of the repository: `{KEK id or
provider: {option: value}}`."""
_NOT_IN_IDS: Final = re.compile(r"[^A-Za-z0-9_-]")

log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Purpose:
    """What data keys are made for: one a backup, one a restore's records, one a day of PITR."""

    kind: str
    owner: str

    def prefix(self, key: str) -> str:
        """How ids of keys for this purpose begin; `key` is the object to be sealed."""
        day = slice_day_of(key) if self.kind == "pitr" else None
        name = f"{self.kind}-{self.owner}" if day is None else f"{self.kind}-{self.owner}-{day}"
        return _NOT_IN_IDS.sub("_", name) + "-"


class Witnesses(Protocol):
    """What the control database remembers (`agent.store.encryption_store`)."""

    async def compare(self, address: str, policies: Sequence[Policy]) -> int:
        """How many of the policies are known. Raises `IntegrityError` where they are fewer than
        those known, or others."""

    async def remember(self, address: str, policy: Policy) -> None:
        """The newest policy, which is proven."""

    async def note(
        self, repository_id: str, keys: Sequence[KeyHealth], problem: str | None
    ) -> None:
        """What a probe found."""


@dataclass(frozen=True, slots=True)
class Custody:
    """What a keyring is given of the agent around it."""

    surroundings: Surroundings
    clock: Clock
    now: Callable[[], Awaitable[datetime]]
    """Server time, for what is written down."""
    witnesses: Witnesses
    policies_seen: dict[str, int] = field(default_factory=dict)
    """By the address of a storage: how many policies anybody in this agent has read. Whoever goes
    by fewer reads again, so that an agent that has told of a policy writes by it everywhere."""


@dataclass(slots=True)
class _Held:
    data_key: DataKey
    proven_at: float


@dataclass
class Keyring:
    """See the module. One for each open storage; `aclose` lets go of the providers."""

    storage: Storage
    custody: Custody
    purpose: Purpose | None = None
    policies_at: Storage | None = None
    """Where the policy is, if `storage` is several storages as one."""
    companions: Sequence[Keyring] = ()
    """Then, those of the others that have a policy of their own."""
    _policies: list[Policy] = field(default_factory=list)
    _proven: int = 0
    """So many of them are known to be right."""
    _read_at: float | None = None
    _providers: dict[str, KeyProvider] = field(default_factory=dict)
    _unwrapped: dict[str, bytes] = field(default_factory=dict, repr=False)
    _writing: dict[str, _Held] = field(default_factory=dict, repr=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def policy(self, *, fresh: bool = False) -> Policy | None:
        """What holds for whoever writes, or unwraps. A policy that the control database does not
        know yet is proven with the repository's authority, and then remembered. Raises
        `IntegrityError` where it was tampered with, `KeyUnusable` where it cannot be proven."""
        await self._read(fresh)
        await self._prove_new()
        return self._policies[-1] if self._policies else None

    async def announced(self, *, fresh: bool = False) -> Policy | None:
        """The same for whoever reads, and may have no key: where it cannot be proven now, what
        the repository says of itself. Raises `IntegrityError`, and what the storage raises."""
        await self._read(fresh)
        try:
            await self._prove_new()
        except (KeyUnusable, KeyServiceUnavailable, ConfigError) as error:
            log.warning("encryption.policy_unproven", error=str(error))
        return self._policies[-1] if self._policies else None

    async def _prove_new(self) -> None:
        if self._proven < len(self._policies):
            where = self.policies_at or self.storage
            prove(self._policies, await self._authority(), where.address)
            await self.custody.witnesses.remember(where.address, self._policies[-1])
            self._proven = len(self._policies)

    async def _read(self, fresh: bool) -> None:
        now = self.custody.clock.monotonic()
        where, seen = self.policies_at or self.storage, self.custody.policies_seen
        is_behind = len(self._policies) < seen.get(where.address, 0)
        if fresh or is_behind or self._read_at is None or now - self._read_at > POLICY_AGE_S:
            self._policies = await read_policies(where, self._policies)
            seen[where.address] = max(len(self._policies), seen.get(where.address, 0))
            known = await self.custody.witnesses.compare(where.address, self._policies)
            self._proven = max(self._proven, known)
            self._read_at = now

    async def _authority(self) -> bytes:
        """Asked of the keys of the oldest policy first: a forged one names keys of its own."""
        errors: dict[str, TidelogError] = {}
        record = self._policies[0].authority
        for wrap in (wrap for policy in self._policies for wrap in policy.authority.wraps):
            if wrap.kek.id in errors:
                continue
            try:
                return await self._opened(wrap, record)
            except TidelogError as error:
                errors[wrap.kek.id] = error
        raise cannot_unwrap("the key that proves the encryption policy", errors.values())

    async def _opened(self, wrap: Wrap, record: DataKeyRecord) -> bytes:
        provider = self.provider(wrap.kek)
        await check_usable(provider, wrap.kek)
        return await provider.unwrap(base64.b64decode(wrap.ciphertext), record.context)

    async def authority(self) -> bytes:
        """The key that proves policies, to sign the next one. Raises as `policy`."""
        await self.policy()
        return await self._authority()

    async def writing_key(self, key: str) -> DataKey:
        """The data key to seal an object with. Raises `KeyUnusable`, `KeyServiceUnavailable`."""
        if self.purpose is None:
            raise ConfigError(f"nothing says with which data key {key} is to be encrypted")
        prefix = self.purpose.prefix(key)
        async with self._turn:
            held = self._writing.get(prefix)
            if held is not None and self._age_s(held) < TRUST_S:
                return held.data_key
            if held is not None:
                await self._unwrap(held.data_key.id)
                held.proven_at = self.custody.clock.monotonic()
                return held.data_key
            data_key = await self._found(prefix) or await self.create(prefix)
            self._writing = {prefix: _Held(data_key, self.custody.clock.monotonic())}
            return data_key

    def writing_key_id(self, key: str) -> str | None:
        """The id of the data key that such an object is sealed with now."""
        held = self._writing.get(self.purpose.prefix(key)) if self.purpose else None
        return held.data_key.id if held else None

    def _age_s(self, held: _Held) -> float:
        return self.custody.clock.monotonic() - held.proven_at

    async def _found(self, prefix: str) -> DataKey | None:
        async for item in self.storage.list(f"{KEYS}{prefix}"):
            key_id = key_id_of(item.key)
            if key_id is not None:
                return DataKey(key_id, await self._unwrap(key_id))
        return None

    @property
    def policies(self) -> list[Policy]:
        """Those read last, in order."""
        return list(self._policies)

    async def create(self, prefix: str) -> DataKey:
        """A new data key, stored under every KEK of the policy. Raises what the first of them
        raises; what another cannot do now is made good by the next probe."""
        policy = await self.policy()
        marker = policy.repository_id if policy else ""
        if policy is None:
            raise ConfigError("the repository is not encrypted, and has no keys")
        key_id = f"{prefix}{secrets.token_hex(4)}"
        context = wrap_context(marker, key_id)
        first, *others = policy.keks
        made, wrapped = await (await self._rightful(first)).generate(context)
        wraps = [wrap_of(first, wrapped)]
        for kek in others:
            try:
                wraps.append(await self._wrapped(made, kek, context))
            except TidelogError as error:
                log.error("encryption.wrap_missing", key_id=key_id, kek=kek.id, error=str(error))
        record = DataKeyRecord(
            key_id=key_id,
            repository_id=policy.repository_id,
            created_at=await self.custody.now(),
            wraps=tuple(wraps),
        )
        await put_bytes(self.storage, data_key_key(key_id), stored_record(record))
        await fault_point("encryption.key_created")
        for companion in self.companions:
            try:
                await companion.add_wraps(record, made)
            except TidelogError as error:  # publishing there will fail, and name it
                log.error("encryption.wrap_missing", key_id=key_id, error=str(error))
        self._unwrapped[key_id] = made
        return DataKey(key_id, made)

    async def add_wraps(self, record: DataKeyRecord, data_key: bytes) -> tuple[str, ...]:
        """Wrap a data key under the KEKs of the policy that it is not wrapped under yet; answers
        their ids. Each wrap is an object of its own, written once."""
        policy = await self.policy()
        present = {wrap.kek.id for wrap in record.wraps}
        added: list[str] = []
        for kek in policy.keks if policy else ():
            if kek.id in present:
                continue
            wrap = await self._wrapped(data_key, kek, record.context)
            further = record.model_copy(update={"wraps": (wrap,)})
            try:
                key = data_key_key(record.key_id, kek.id)
                await put_bytes(self.storage, key, stored_record(further))
            except ObjectExists:
                pass  # somebody was faster
            await fault_point("encryption.key_wrapped")
            added.append(kek.id)
        return tuple(added)

    async def _wrapped(self, data_key: bytes, kek: Kek, context: dict[str, str]) -> Wrap:
        return wrap_of(kek, await (await self._rightful(kek)).wrap(data_key, context))

    async def _rightful(self, kek: Kek) -> KeyProvider:
        """To wrap with: usable, and a passphrase or key file the very one that the policy means.
        What is wrapped under another one, nobody else could unwrap."""
        provider = self.provider(kek)
        await check_usable(provider, kek)
        if not kek.is_service:
            await own_fingerprint(provider, kek)
        return provider

    async def data_key(self, key_id: str) -> bytes:
        """A data key in clear, to read with. Raises `KeyUnusable`, `KeyServiceUnavailable`,
        `IntegrityError` where it is missing."""
        async with self._turn:
            if key_id not in self._unwrapped:
                await self._unwrap(key_id)
            return self._unwrapped[key_id]

    async def prove(self, key_ids: Iterable[str]) -> None:
        """Unwrap these now, whether they are known or not. Raises as `data_key`."""
        for key_id in sorted(set(key_ids)):
            async with self._turn:
                await self._unwrap(key_id)

    async def record(self, key_id: str) -> DataKeyRecord:
        """All wraps of a data key that the repository's policies know. Raises `IntegrityError`
        where there is no such data key, and as `policy`."""
        await self.policy()
        return trusted(await stored_wraps(self.storage, key_id), self._policies)

    async def _unwrap(self, key_id: str) -> bytes:
        record = await self.record(key_id)
        errors: list[TidelogError] = []
        for wrap in record.wraps:
            try:
                self._unwrapped[key_id] = await self._opened(wrap, record)
            except TidelogError as error:
                errors.append(error)
            else:
                return self._unwrapped[key_id]
        raise cannot_unwrap(f"the data key {key_id}", errors)

    def provider(self, kek: Kek) -> KeyProvider:
        """The provider that holds a KEK. Raises `ConfigError`."""
        if kek.id not in self._providers:
            options = {**kek.options, **self._overrides(kek)}
            self._providers[kek.id] = open_provider(
                kek.provider, options, self.custody.surroundings
            )
        return self._providers[kek.id]

    def _overrides(self, kek: Kek) -> dict[str, Any]:
        path = self.custody.surroundings.environment.get(OPTIONS_VARIABLE)
        if not path:
            return {}
        text = self.custody.surroundings.secrets.file(Path(path))
        given = yaml_keys.parse_yaml(text, path)
        return {**(given.get(kek.provider) or {}), **(given.get(kek.id) or {})}

    async def aclose(self) -> None:
        """Let go of everything; keys in clear, too."""
        for provider in self._providers.values():
            await provider.aclose()
        self._providers.clear()
        self._unwrapped.clear()
        self._writing.clear()
