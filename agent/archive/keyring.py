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
from pydantic import ValidationError

from agent.archive.envelope import DataKey
from agent.archive.layout import KEYS, data_key_key, data_key_prefix, key_id_of, slice_day_of
from agent.archive.policies import read_policies
from agent.clock import Clock
from agent.errors import (
    ConfigError,
    IntegrityError,
    KeyServiceUnavailable,
    KeyUnusable,
    ObjectNotFound,
    TidelogError,
)
from agent.faults import fault_point
from agent.keys.base import KeyProvider
from agent.keys.registry import open_provider
from agent.storage.base import Storage, get_bytes, put_bytes
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

    async def compare(self, address: str, policies: Sequence[Policy]) -> None:
        """Raises `IntegrityError` where policies are fewer than known, or others."""

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
    _policies: list[Policy] = field(default_factory=list)
    _read_at: float | None = None
    _providers: dict[str, KeyProvider] = field(default_factory=dict)
    _unwrapped: dict[str, bytes] = field(default_factory=dict, repr=False)
    _writing: dict[str, _Held] = field(default_factory=dict, repr=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def policy(self, *, fresh: bool = False) -> Policy | None:
        """What holds for whoever writes. Raises `IntegrityError` where it was tampered with."""
        now = self.custody.clock.monotonic()
        if fresh or self._read_at is None or now - self._read_at > POLICY_AGE_S:
            where = self.policies_at or self.storage
            self._policies = await read_policies(where, self._policies)
            await self.custody.witnesses.compare(where.address, self._policies)
            self._read_at = now
        return self._policies[-1] if self._policies else None

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
        provider = self.provider(first)
        await check_usable(provider, first)
        made, wrapped = await provider.generate(context)
        wraps = [Wrap(kek=first, ciphertext=base64.b64encode(wrapped).decode())]
        for kek in others:
            try:
                wraps.append(await self.wrapped(made, kek, context))
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
        self._unwrapped[key_id] = made
        return DataKey(key_id, made)

    async def wrapped(self, data_key: bytes, kek: Kek, context: dict[str, str]) -> Wrap:
        """A data key under one KEK."""
        ciphertext = await self.provider(kek).wrap(data_key, context)
        return Wrap(kek=kek, ciphertext=base64.b64encode(ciphertext).decode())

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
        """All wraps of a data key. Raises `IntegrityError` where there is none."""
        try:
            found = read_record(await get_bytes(self.storage, data_key_key(key_id)), key_id)
        except ObjectNotFound as error:
            raise IntegrityError(
                f"{data_key_key(key_id)} is missing from {self.storage.address}",
                hint="without it nothing that was encrypted with it can be read",
            ) from error
        wraps = list(found.wraps)
        async for item in self.storage.list(data_key_prefix(key_id)):
            if item.key != data_key_key(key_id):
                wraps += read_record(await get_bytes(self.storage, item.key), key_id).wraps
        return found.model_copy(update={"wraps": tuple(wraps)})

    async def _unwrap(self, key_id: str) -> bytes:
        record = await self.record(key_id)
        errors: list[TidelogError] = []
        for wrap in record.wraps:
            try:
                provider = self.provider(wrap.kek)
                await check_usable(provider, wrap.kek)
                found = await provider.unwrap(base64.b64decode(wrap.ciphertext), record.context)
            except TidelogError as error:
                errors.append(error)
            else:
                self._unwrapped[key_id] = found
                return found
        raise _cannot(key_id, errors)

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


async def check_usable(provider: KeyProvider, kek: Kek) -> None:
    """Ask for the state of a KEK before it is used. Raises `KeyUnusable` that names both."""
    found = await provider.describe()
    if not found.state.is_usable:
        when = f" at {found.deletion_at:%Y-%m-%dT%H:%M:%SZ}" if found.deletion_at else ""
        raise KeyUnusable(f"the {kek.label} is {found.state.value}{when}")


def _cannot(key_id: str, errors: list[TidelogError]) -> TidelogError:
    reasons = "; ".join(str(error) for error in errors) or "it has no wrap"
    text = f"the data key {key_id} cannot be unwrapped: {reasons}"
    if any(isinstance(error, KeyServiceUnavailable) for error in errors):
        return KeyServiceUnavailable(text)
    return KeyUnusable(text)
