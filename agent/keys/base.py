"""What a key provider has to do. A further one is one file, and one line in
`agent.wire.encryption.PROVIDERS`; one whose key a service keeps begins with `agent.keys.service`.

A provider holds one key-encryption key and never gives it away. It wraps and unwraps data keys (32
bytes) bound to a *context*, a few pairs of text: what was wrapped for one data key of one
repository cannot be passed off as another. A key management service takes the context as its
encryption context; the others as associated data.

A provider's module has a function `open_provider(options, surroundings) -> KeyProvider`. Options
come from a person (`ctl encryption enable`) or from the policy of a repository; a provider answers
with `kek()` what of them is to be kept. They hold references to secrets, never secrets.

Errors are two: `KeyServiceUnavailable` (try again) and `KeyUnusable`, with the key's name and its
state, for all else: disabled, to be deleted, gone, access denied, another key than it should be.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from agent.errors import ConfigError, KeyUnusable
from agent.storage.surroundings import Surroundings
from agent.wire.encryption import KEY_BYTES, Kek, KeyDescription, KeyState, kek_id

Options = Mapping[str, Any]
Context = Mapping[str, str]
T = TypeVar("T", bound=BaseModel)

_NONCE_BYTES: Final = 12
_WRAP_PURPOSE: Final = b"tidelog wrapped data key v1"


class KeyProvider(Protocol):
    """One key-encryption key. Every method may wait for a network and has a deadline of its own."""

    @property
    def name(self) -> str:
        """The provider: `passphrase`, `aws-kms`, …"""

    async def kek(self) -> Kek:
        """The key as a policy is to name it: resolved (an alias to its key, a salt made), with the
        options that open it again. Raises `KeyUnusable`, `ConfigError`."""

    async def generate(self, context: Context) -> tuple[bytes, bytes]:
        """A new data key, in clear and wrapped."""

    async def wrap(self, data_key: bytes, context: Context) -> bytes:
        """A data key wrapped."""

    async def unwrap(self, wrapped: bytes, context: Context) -> bytes:
        """The reverse. Raises `KeyUnusable` with the state of the key."""

    async def describe(self) -> KeyDescription:
        """The state of the key, without use of it. A provider that is not allowed to ask answers
        `KeyState.UNKNOWN` with a warning."""

    async def mark(self, repository_id: str) -> str | None:
        """Tag the key as in use, where its keeper can; answers a warning where it could not."""

    async def aclose(self) -> None:
        """Let go of connections. Idempotent."""


class ProviderOptions(BaseModel):
    """The base of a provider's options: camel case, nothing unknown."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, alias_generator=to_camel
    )

    def to_options(self) -> dict[str, Any]:
        """As kept in a policy."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=False)


def parsed(model: type[T], options: Options, provider: str) -> T:
    """A provider's options. Raises `ConfigError` that names the option and repeats no value."""
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(step) for step in first["loc"]) or "options"
    what = first["msg"].removeprefix("Value error, ")
    raise ConfigError(f"{provider}: {where}: {what[:1].lower()}{what[1:]}")


def new_data_key() -> bytes:
    """32 random bytes."""
    return os.urandom(KEY_BYTES)


def associated(context: Context) -> bytes:
    """A context as associated data."""
    return _WRAP_PURPOSE + json.dumps(dict(sorted(context.items()))).encode()


def wrap_locally(kek: bytes, data_key: bytes, context: Context) -> bytes:
    """AES-256-GCM: a random nonce of 12 bytes, then ciphertext and tag."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(kek).encrypt(nonce, data_key, associated(context))


def unwrap_locally(kek: bytes, wrapped: bytes, context: Context, label: str) -> bytes:
    """The reverse. Raises `KeyUnusable` for another key or changed bytes."""
    try:
        return AESGCM(kek).decrypt(
            wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], associated(context)
        )
    except (InvalidTag, ValueError) as error:
        raise KeyUnusable(
            f"{label} does not open the data key {context.get('tidelog-key', '')}",
            hint="it is another key than the one it was wrapped with, or the wrapped key was "
            "changed",
        ) from error


class LocalProvider:
    """The base of providers that hold the key in this process: what is left to them is to get it.
    `key()` answers its 32 bytes and is asked each time, so that a changed file is seen."""

    name: str
    label: str
    """For people; never the key."""

    def __init__(self, options: Options, surroundings: Surroundings) -> None:
        self.surroundings = surroundings

    async def key(self) -> bytes:
        """The key-encryption key, 32 bytes. Raises `ConfigError`, `KeyUnusable`."""
        raise NotImplementedError

    def kept_options(self) -> dict[str, Any]:
        """The options that a policy keeps."""
        raise NotImplementedError

    async def kek(self) -> Kek:
        """See `KeyProvider`."""
        mark = await self.fingerprint()
        return Kek(
            id=kek_id(self.name, "", mark),
            provider=self.name,
            key=self.label,
            options=self.kept_options(),
            fingerprint=mark,
        )

    async def fingerprint(self) -> str:
        """Of the key itself; it gives nothing of it away."""
        return fingerprint_of(await self.key())

    async def generate(self, context: Context) -> tuple[bytes, bytes]:
        """See `KeyProvider`."""
        data_key = new_data_key()
        return data_key, await self.wrap(data_key, context)

    async def wrap(self, data_key: bytes, context: Context) -> bytes:
        """See `KeyProvider`."""
        return wrap_locally(await self.key(), data_key, context)

    async def unwrap(self, wrapped: bytes, context: Context) -> bytes:
        """See `KeyProvider`."""
        return unwrap_locally(await self.key(), wrapped, context, f"the {self.name} {self.label}")

    async def describe(self) -> KeyDescription:
        """See `KeyProvider`."""
        await self.key()
        return KeyDescription(state=KeyState.ENABLED, key=self.label)

    async def mark(self, repository_id: str) -> str | None:
        """Nobody keeps it who could."""
        return None

    async def aclose(self) -> None:
        """Nothing is open."""


def fingerprint_of(key: bytes) -> str:
    """16 hexadecimal characters that tell one key from another."""
    return hashlib.blake2b(key, key=b"tidelog key fingerprint", digest_size=8).hexdigest()
